"""The URL and the key of a server of language models; no refusal shows a secret of theirs."""

import os
import re
from urllib.parse import urlsplit

from trainables.errors import SweepAborted


def check_endpoint(url: str, api_key_env: str) -> None:
    """Refuses what is no http(s) URL, and a URL that may hold a secret."""
    if re.search("[@?#;]", url):
        raise SweepAborted(
            "the endpoint's URL has one of @ ? # ; in it, behind which logs may show a key",
            f"give the plain URL, and the key in the environment variable {api_key_env}",
        )
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or of brackets
        is_url = False
    if not is_url:
        raise SweepAborted(
            f"the endpoint {url!r} is no http(s) URL", "e.g. http://localhost:8000/v1"
        )


def read_api_key(variable: str) -> str:
    """The key in an environment variable, or "" if it is unset.

    Raises:
        SweepAborted: no HTTP header can carry it.
    """
    key = os.environ.get(variable, "").strip()  # files of variables leave line ends behind it
    if not (key.isascii() and key.isprintable()):
        raise SweepAborted(
            f"the key in {variable} has a character that no HTTP header can carry",
            f"put the key alone, without quotes or line ends, into {variable}",
        )
    return key
