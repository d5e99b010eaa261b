"""A Ray cluster on this machine counts if its server answers, whatever a file says."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.find import answers, running_address


@pytest.fixture
def address_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `ray start` notes the address."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.fixture
def live() -> Iterator[str]:
    """Address of a server that listens on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def stale() -> str:
    """Address of a server that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_no_file_is_no_cluster(address_file: Path) -> None:
    assert running_address() is None


def test_live_cluster_is_found(address_file: Path, live: str) -> None:
    address_file.write_text(f"{live}\n")
    assert running_address() == live


def test_stale_file_is_ignored(address_file: Path, stale: str) -> None:
    address_file.write_text(stale)
    assert running_address() is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"host:port", b"\xff\xfe:1", b"h:99999999"])
def test_file_that_names_no_address_is_ignored(address_file: Path, content: bytes) -> None:
    address_file.write_bytes(content)
    assert running_address() is None


def test_file_that_cannot_be_read_is_ignored(address_file: Path) -> None:
    address_file.mkdir()
    assert running_address() is None


def test_temporary_folder_holds_the_file_by_default(
    address_file: Path, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_file.write_text(live)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr("tempfile.tempdir", str(address_file.parent.parent))
    assert running_address() == live


def test_client_addresses_answer_too(live: str, stale: str) -> None:
    assert answers(f"ray://{live}")
    assert not answers(f"ray://{stale}")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_address_answers() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert answers(f"[::1]:{server.getsockname()[1]}")
