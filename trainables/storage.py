"""Files on object storage, by fsspec: what nodes share that have no folder in common.

What fails is tried again, and ends the sweep if it fails to the last.
"""

import functools
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from trainables.checkpoint import TMP_SUFFIX
from trainables.errors import REPEAT, SweepAborted, get_first_line

Url = TypeVar("Url", bound=str | None)
Params = ParamSpec("Params")
Result = TypeVar("Result")

RETRY_WAITS_S = (1.0, 5.0, 20.0)
"""Before each further try of what has failed."""
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 4, 30
"""How long a server may keep silent; a file may take longer."""


def retry(
    do: Callable[Concatenate[Url, Params], Result],
) -> Callable[Concatenate[Url, Params], Result]:
    """Has a function of a URL tried again when it fails.

    It raises a SweepAborted in the end; one of its own at once.
    """

    @functools.wraps(do)
    def repeat(url: Url, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        return _try(url, functools.partial(do, url, *args, **kwargs), RETRY_WAITS_S)

    return repeat


def _try(url: str | None, do: Callable[[], Result], waits_s: Sequence[float]) -> Result:
    for wait_s in (*waits_s, None):
        try:
            return do()
        except SweepAborted:
            raise
        except Exception as refused:  # those of boto, Google and aiohttp have no class in common
            if wait_s is None:
                raise SweepAborted(
                    f"the storage {url} cannot be used: {_explain(refused)}",
                    f"see that it answers, has room, and takes these credentials, {REPEAT}",
                ) from refused
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec  # which runs without storage do without

    fs, path = fsspec.url_to_fs(url, **make_options(url))
    return fs, path.rstrip("/")


def make_options(url: str) -> dict[str, Any]:
    """What the file system of a URL is opened with."""
    scheme = url.partition("://")[0]
    if scheme == "file":
        return {"auto_mkdir": True}
    options: dict[str, Any] = {"use_listings_cache": False}  # others write there too
    if scheme == "s3":
        timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
        options["config_kwargs"] = timeouts | {"retries": {"max_attempts": 2}}
    elif scheme == "gs":  # gcsfs gives it to aiohttp with each request, and tries each six times
        from aiohttp import ClientTimeout

        options["requests_timeout"] = ClientTimeout(
            sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
    return options


@retry
def read_file(url: str) -> bytes | None:
    """What a file holds; None if there is none.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    fs, path = open_url(url)
    content: bytes | None = fs.cat_file(path) if fs.exists(path) else None
    return content


@retry
def list_names(url: str) -> list[str]:
    """The files and folders right under a URL; none if it is not there.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    fs, path = open_url(url)
    paths = fs.ls(path, detail=False) if fs.exists(path) else []
    return sorted(Path(name).name for name in paths)


def find_files(fs: Any, root: str) -> list[str]:
    """The paths of all files, but for those on a disk that are being written."""
    return [path for path in fs.find(root) if not path.endswith(TMP_SUFFIX)]


@retry
def fetch_files(url: str, folder: Path, *, without: str = "", last: Iterable[str] = ()) -> None:
    """Copies all files under a URL into a folder; each appears at once, or replaces another.

    Args:
        without: folder there that is left out.
        last: names of files there that come last, in this order.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    fs, root = open_url(url)
    names = [path.removeprefix(f"{root}/") for path in find_files(fs, root)]
    names = [name for name in names if not name.startswith(f"{without}/")]
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise ValueError("a name there leads out of the folder")
    if names:
        # they may be rows, which are for their user, and a group that the umask lets in
        folder.mkdir(mode=0o770, parents=True, exist_ok=True)
    ends = list(last)
    for name in sorted(names, key=lambda name: ends.index(name) if name in ends else -1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}{TMP_SUFFIX}")
        try:
            fs.get_file(f"{root}/{name}", str(tmp))
            tmp.replace(path)
        finally:
            tmp.unlink(missing_ok=True)


def put_file(url: str, path: Path, *, is_repeated: bool = True) -> None:
    """Copies a file, which appears at once.

    Args:
        is_repeated: whether what fails is tried again.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    _try(url, functools.partial(_put, url, path), RETRY_WAITS_S if is_repeated else ())


def _put(url: str, path: Path) -> None:
    """An object appears whole; a file on a disk has to be renamed."""
    fs, target = open_url(url)
    if "file" in fs.protocol:
        fs.put_file(str(path), target + TMP_SUFFIX)
        fs.mv(target + TMP_SUFFIX, target)
    else:
        fs.put_file(str(path), target)


@retry
def delete(url: str) -> None:
    """Deletes a file, or all under a URL; it may be gone already.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    fs, path = open_url(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def check_writable(url: str) -> None:
    """Writes a file there and deletes it again.

    Raises:
        SweepAborted: it cannot, or what reads such URLs is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        fs, root = open_url(url)
        probe = f"{root}/.probe-{uuid.uuid4().hex[:8]}"
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)
    except ImportError as missing:
        raise SweepAborted(
            f"{url} cannot be reached: {get_first_line(missing)}", f"pip install '.[{scheme}]'"
        ) from None
    except Exception as refused:  # see retry
        fix = "check that the bucket exists, and that this machine's credentials may write there"
        fix = "name a folder that can be written" if scheme == "file" else fix
        raise SweepAborted(f"{url} cannot be written: {_explain(refused)}", fix) from None


def find_write_fault(url: str) -> str:
    """Why check_writable refuses a URL; empty if it does not."""
    try:
        check_writable(url)
    except SweepAborted as refused:
        return refused.error
    return ""


def _explain(refused: Exception) -> str:
    return f"{type(refused).__name__}: {get_first_line(refused)}"
