"""Workers that are forked are to Ray, and to who uses them, as any other worker."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from cluster.connect import connect
from cluster.forking import client
from cluster.forking.start import forking

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

LOADED = "xml.dom.minidom"
Start = Callable[..., ActorHandle]


class Worker:
    """Says of its process what the tests ask."""

    def facts(self) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "has_loaded": LOADED in sys.modules,
            "value": os.environ.get("FORKING_VALUE"),
            "path": [Path(folder).name for folder in sys.path],
            "folder": os.getcwd(),
        }


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with connect(num_local_cpus=2):
        yield


@pytest.fixture(scope="module")
def py_executable(cluster: None) -> Iterator[str | None]:
    with forking(LOADED, {"FORKING_VALUE": "of the import"}) as found:
        yield found


@pytest.fixture
def start(py_executable: str | None) -> Iterator[Start]:
    started = []

    def started_by(command: str | None = py_executable) -> ActorHandle:
        env = {"py_executable": command, "env_vars": {"FORKING_VALUE": "its own"}}
        actor = ray.remote(num_cpus=0, max_restarts=1)(Worker).options(runtime_env=env).remote()
        started.append(actor)
        return actor

    yield started_by
    for actor in started:
        ray.kill(actor)


def facts_of(actor: ActorHandle) -> dict[str, object]:
    """Also of one that starts again."""
    for _ in range(100):
        try:
            found: dict[str, object] = ray.get(actor.facts.remote())
            return found
        except RayActorError:
            time.sleep(0.1)
    raise AssertionError("the worker has not started again")


def running(words: bytes) -> set[int]:
    """Processes with these words in their command."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found |= {int(path.parent.name)} if words in path.read_bytes() else set()
    return found


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_worker_is_forked_with_its_own_environment(start: Start) -> None:
    facts = facts_of(start())
    assert facts["has_loaded"] and facts["value"] == "its own"
    assert facts["folder"] == os.getcwd()
    assert isinstance(facts["path"], list) and "workers" in facts["path"]  # that of Ray's script


def test_killed_worker_is_forked_again_and_others_live_on(start: Start) -> None:
    one, other = start(), start()
    killed, left = facts_of(one), facts_of(other)
    assert isinstance(killed["pid"], int)
    os.kill(killed["pid"], signal.SIGKILL)
    again = facts_of(one)
    assert again["pid"] != killed["pid"] and again["has_loaded"]
    assert facts_of(other) == left


def test_worker_and_its_client_end_together(start: Start) -> None:
    with forking(LOADED, {}) as command:
        assert command is not None
        path = shlex.split(command)[-1].encode()
        actor = start(command)
        pid = facts_of(actor)["pid"]
        (client,) = running(path)
        assert isinstance(pid, int)
        os.kill(client, signal.SIGKILL)
        assert is_gone(pid)
        other = facts_of(actor)["pid"]
        (client,) = running(path)
        ray.kill(actor)
        assert isinstance(other, int) and is_gone(other) and is_gone(client)


def test_without_a_server_a_worker_starts_as_any_other(start: Start) -> None:
    with forking(LOADED, {}) as command:
        assert facts_of(start(command))["has_loaded"]
    facts = facts_of(start(command))
    assert not facts["has_loaded"] and facts["value"] == "its own"


def test_server_that_cannot_import_leaves_workers_to_python(start: Start) -> None:
    with forking("no_such_module", {}) as command:
        assert not facts_of(start(command))["has_loaded"]


class Peeking(socket.socket):
    """Leaves unread what it receives."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return super().recv(size, flags | socket.MSG_PEEK)


@pytest.mark.parametrize("kind", [socket.socket, Peeking])
@pytest.mark.parametrize("is_there", [True, False])
def test_worker_runs_only_while_who_asked_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[socket.socket], is_there: bool
) -> None:
    script, made = tmp_path / "script.py", tmp_path / "made"
    script.write_text(f"import time; time.sleep(0.5); open({str(made)!r}, 'w')")
    with forking(LOADED, {}) as command:
        assert command is not None
        monkeypatch.setattr(client.socket, "socket", kind)
        connection = client.forked(shlex.split(command)[-1], [str(script)])
        if not is_there:
            connection.close()
        time.sleep(1.5)
        connection.close()
        assert made.exists() == is_there


def test_where_no_socket_can_be_made_workers_are_left_to_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("long" * 30)
    for folder in (long, tmp_path / "none"):
        long.mkdir(exist_ok=True)
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with forking(LOADED, {}) as command:
            assert command is None
    assert not [*long.iterdir()]


def test_server_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, signal; from cluster.forking.start import forking\n"
        "with forking('wsgiref.util', {}) as command:\n"
        "    print(command, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    folder = Path(shlex.split(ended.stdout)[-1]).parent
    until_s = time.monotonic() + 10.0
    while folder.exists() or running(b"wsgiref.util"):
        assert time.monotonic() < until_s
        time.sleep(0.05)
