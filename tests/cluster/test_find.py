"""A Ray cluster on this machine counts if its server answers, whatever a file says."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.find import (
    ClusterError,
    check_address,
    find_address_to_join,
    find_running_address,
    is_answering,
)
from tests.cluster.heads import run_http2_server


@pytest.fixture
def address_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `ray start` notes the address."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.fixture
def live() -> Iterator[str]:
    """Address of a server on this machine that speaks as Ray's head does."""
    with run_http2_server() as address:
        yield address


@pytest.fixture
def stale() -> str:
    """Address of a server that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_no_file_is_no_cluster(address_file: Path) -> None:
    assert find_running_address() is None


def test_live_cluster_is_found(address_file: Path, live: str) -> None:
    address_file.write_text(f"{live}\n")
    assert find_running_address() == live


def test_stale_file_is_ignored(address_file: Path, stale: str) -> None:
    address_file.write_text(stale)
    assert find_running_address() is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"host:port", b"\xff\xfe:1", b"h:99999999"])
def test_file_that_names_no_address_is_ignored(address_file: Path, content: bytes) -> None:
    address_file.write_bytes(content)
    assert find_running_address() is None


def test_file_that_cannot_be_read_is_ignored(address_file: Path) -> None:
    address_file.mkdir()
    assert find_running_address() is None


def test_temporary_folder_holds_the_file_by_default(
    address_file: Path, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_file.write_text(live)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr("tempfile.tempdir", str(address_file.parent.parent))
    assert find_running_address() == live


def test_port_of_another_program_is_no_cluster(address_file: Path) -> None:
    with run_http2_server(b"HTTP/1.1 400 Bad Request\r\n") as address:
        address_file.write_text(address)
        assert find_running_address() is None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_file_that_others_may_write_is_ignored(address_file: Path, live: str, mode: int) -> None:
    address_file.write_text(live)
    address_file.chmod(mode)
    assert find_running_address() is None


def test_file_of_another_user_is_ignored(
    address_file: Path, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_file.write_text(live)
    monkeypatch.setattr("os.getuid", lambda: address_file.stat().st_uid + 1)
    assert find_running_address() is None


def test_auto_is_the_cluster_that_runs_here(
    address_file: Path, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    address_file.write_text(live)
    check_address()
    assert find_address_to_join() == live
    address_file.chmod(0o666)  # Ray would look among the processes of this machine
    with pytest.raises(ClusterError, match="no cluster of this user's"):
        check_address()


def test_folder_that_cannot_be_looked_at_is_no_matter_where_a_cluster_is_joined(
    live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", live)
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'n' * 300}")  # an error, also for root
    check_address()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_address_answers() -> None:
    with run_http2_server(host="::1") as address:
        assert is_answering(address)
