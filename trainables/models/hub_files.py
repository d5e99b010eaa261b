"""Single files of the Hub, with an answer within seconds where the Hub cannot be reached."""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REACH_TIMEOUT_S = 3.0


def download_hub_file(repo: str, file: str, *, dataset_revision: str | None = None) -> Path:
    """A model's file, or a dataset's at dataset_revision; from the cache if the Hub is away.

    hf_hub_download alone retries an unreachable Hub for 23 s or more (huggingface_hub 2.4).

    Raises:
        OSError: the Hub cannot be reached and the cache lacks the file, or the Hub refuses.
        ValueError: repo is not the name of a repository.
    """
    from huggingface_hub import constants, hf_hub_download  # slow; a local folder needs none
    from huggingface_hub.errors import LocalEntryNotFoundError

    is_away = not is_hub_reachable()
    kind = "model" if dataset_revision is None else "dataset"
    try:
        with _explain_refusals():
            path = hf_hub_download(
                repo, file, repo_type=kind, revision=dataset_revision, local_files_only=is_away
            )
    except LocalEntryNotFoundError as missing:
        if not is_away:
            raise
        state = "is switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "is unreachable"
        raise ConnectionError(
            f"the Hub at {constants.ENDPOINT} {state}, and the cache has no {file}"
        ) from missing
    return Path(path)


def has_hub_file(repo: str, file: str) -> bool:
    """Whether a model has a file; if the Hub is away, whether the cache has it.

    Raises:
        OSError: the Hub refuses.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache  # slow; a local folder needs none

    if not is_hub_reachable():
        return isinstance(try_to_load_from_cache(repo, file), str)
    with _explain_refusals():
        return HfApi().file_exists(repo, file)


def list_dataset_files(repo: str, revision: str) -> list[str]:
    """All files of a dataset; if the Hub is away, those in the cache.

    Raises:
        OSError: the Hub refuses or does not answer in time, or the cache has nothing of it.
        ValueError: repo is not the name of a repository.
    """
    from huggingface_hub import HfApi, snapshot_download  # slow; a local table needs neither

    if is_hub_reachable():
        with _explain_refusals():
            return HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
    cached = snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True)
    paths = [path for path in Path(cached).rglob("*") if path.is_file()]
    return [path.relative_to(cached).as_posix() for path in paths]


def is_dataset_id(data: str) -> bool:
    """Whether data names a dataset, OWNER/NAME or OWNER/NAME/SUBSET, and nothing on this disk."""
    is_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*){1,2}", data, re.ASCII) is not None
    types = r"csv|tsv|jsonl|ndjson|json|parquet|arrow|xlsx|gz|zst|bz2|zip"
    is_file = re.search(rf"\.({types})$", data, re.IGNORECASE) is not None
    return is_name and not is_file and not is_on_disk(data)


def is_on_disk(path: str) -> bool:
    """Whether there is such a file or folder here, or a folder that may not be entered hides it."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


@functools.cache
def is_hub_reachable() -> bool:
    """Whether the Hub says anything at all, through the proxies that a download would use."""
    from huggingface_hub import constants  # slow; a local folder needs none
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT_S)
    except (_find_http_error(), OSError):
        return False
    return True


@contextmanager
def _explain_refusals() -> Iterator[None]:
    """What the Hub's HTTP library raises is an OSError outside, and one of a login says so."""
    try:
        yield
    except _find_http_error() as refused:
        status = getattr(getattr(refused, "response", None), "status_code", None)
        if status in (401, 403):
            message = getattr(refused, "server_message", None)
            detail = f", {message}" if message else ""
            raise PermissionError(
                f"the Hub refuses it ({status}{detail}): it is not there, private or gated (ask "
                "for access on its page), or the token is not valid; log in by `hf auth login`, or "
                "set HF_TOKEN"
            ) from refused
        if isinstance(refused, OSError):
            raise
        raise ConnectionError(str(refused) or type(refused).__name__) from refused


def _find_http_error() -> type[Exception]:
    """The HTTPError of httpx or httpx2, whichever huggingface_hub is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__mro__[1]
    return base
