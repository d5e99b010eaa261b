"""Text that others may read: without secrets, and in one line."""

import os
import re
from pathlib import Path

HIDDEN = "REDACTED"
"""Stands where a secret was."""
_NAMES = "token|key|password|passwd|secret"
_ENDS = tuple(_NAMES.upper().split("|"))
_SECRETS = (
    (r"()\bhf_[A-Za-z0-9]{8,}()", 0),
    (r"(\w://[^\s/:@]*:)(?!PASSWORD@)[^\s\"'<>]+(@)", 0),
    (r"(https?://)[^\s/:@\"'<>]+(@)", 0),  # a token in the place of a user
    (r"((?<![\w/:@.-])(?!mailto:)[\w.+-]+:)[^\s/:@\"'<>]+(@)", 0),
    (rf"([?&][\w-]*(?:{_NAMES})=)[^&\s\"'<>]+()", re.IGNORECASE),
    (rf"(--[\w-]*(?:{_NAMES})[= ])\S+()", 0),
    (rf"(\b[A-Z_]*(?:{_NAMES.upper()})=)\S+()", 0),
)
"""Patterns, and their flags; what stands between the groups is secret."""


def redact(text: str) -> str:
    """Text without secrets, and without the name of the home folder."""
    return hide_secrets(text).replace(f"{Path.home()}/", "~/")


def hide_secrets(text: str) -> str:
    """Text without Hub tokens, passwords in URLs and flags, and secrets of this environment."""
    for pattern, flags in _SECRETS:
        text = re.sub(pattern, rf"\1{HIDDEN}\2", text, flags=flags)
    for name in filter(lambda name: name.endswith(_ENDS), os.environ):
        secret = os.environ[name].strip()  # files of variables leave line ends behind it
        text = text.replace(secret, HIDDEN) if len(secret) >= 8 else text
    return text


def join_lines(text: str) -> str:
    """Text without line breaks and terminal escapes: it may come from any exception or server."""
    shown = "".join(char if char.isprintable() else "\n" for char in text)
    return re.sub(r" *\n[ \n]*", " ", shown).strip()  # blanks of a path stay as many as they are
