"""Text without secrets, before it is written down where others may read it."""

import os
import re
from pathlib import Path


def redact(text: str) -> str:
    """Text without Hub tokens, passwords in URLs, secrets of this environment and home folders."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{8,}", "REDACTED", text)
    text = re.sub(r"(\w://[^\s/:@]*):[^\s/@]+@", r"\1:REDACTED@", text)
    text = re.sub(r"(--[\w-]*(?:token|key|password|secret)[= ])\S+", r"\1REDACTED", text)
    text = re.sub(r"(\b[A-Z_]*(?:TOKEN|KEY|PASSWORD|SECRET)=)\S+", r"\1REDACTED", text)
    for name, value in os.environ.items():
        if re.search(r"(TOKEN|KEY|PASSWORD|SECRET)$", name) and len(value) >= 8:
            text = text.replace(value, "REDACTED")
    return text.replace(f"{Path.home()}/", "~/")
