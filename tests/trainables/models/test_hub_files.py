"""Files of the Hub: from the cache without it, and an answer in time whatever it says."""

import http.server
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest

from trainables.models import hub_files

HANG_S = 500.0
CODE = """
import sys
from trainables.errors import SweepAborted
from trainables.models.hub_files import download_hub_file, has_hub_file
from trainables.models.model_facts import read_model_facts
from trainables.config import TaskOptions
from trainables.data.tasks import TASKS
for what in sys.argv[1:]:
    try:
        if what == "file":
            print(download_hub_file("owner/name", "config.json").read_text())
        elif what == "has":
            print(*(has_hub_file("owner/name", name) for name in ("config.json", "other.json")))
        elif what == "model":
            read_model_facts("owner/name")
        else:
            TASKS["samsum"](TaskOptions()).load(None)
    except SweepAborted as told:
        print(told)
    except OSError as refused:
        print("refused")
"""


@contextmanager
def hub(status: int, requests: list[str] | None = None, **headers: str) -> Iterator[str]:
    """A server that answers everything with one status; "/" alone is always there.

    Args:
        requests: receives the path of every request.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if requests is not None:
                requests.append(self.path)
            self.send_response(200 if self.path == "/" else status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def closed_door() -> Iterator[tuple[str, list[None]]]:
    """A server that closes every connection at once, and a list with an item for each."""
    connections: list[None] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connections.append(None)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", connections
        server.shutdown()


def ask(endpoint: str, home: Path, *what: str) -> str:
    """What a new process prints that asks the Hub for these."""
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, *what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {"X_Error_Code": "RepoNotFound"}),
        (404, {"X_Error_Code": "EntryNotFound"}),
        (403, {"X_Error_Code": "GatedRepo"}),
        (401, {}),
    ],
)
def test_refusal_of_the_hub_is_told_without_further_tries(
    status: int, headers: dict[str, str], tmp_path: Path
) -> None:
    requests: list[str] = []
    with hub(status, requests, **headers) as endpoint:
        told = ask(endpoint, tmp_path, "model", "data")
    model, data = re.split(r"(?<=\n)(?=error: cannot download)", told)
    assert model.startswith("error: the model owner") and "--model DIR" in model
    assert "--data DIR" in data
    needs_login = status in (401, 403)
    assert ("HF_TOKEN" in model) == ("HF_TOKEN" in data) == needs_login
    assert len(requests) > 2 and len(set(requests)) == len(requests), "a refusal was asked again"


def test_a_hub_that_does_not_answer_in_time_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(*_: object, **__: object) -> None:
        raise hub_files._find_http_error()("timed out")

    monkeypatch.setattr(hub_files, "is_hub_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", late)
    with pytest.raises(ConnectionError, match="timed out"):
        hub_files.list_dataset_files("owner/name", "main")


def test_cache_is_used_without_a_hub(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    commit = "0" * 40
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "config.json").write_text("cached")
    with closed_door() as (endpoint, connections):
        assert ask(endpoint, tmp_path, "file", "has") == "cached\nTrue False\n"
    assert 1 <= len(connections) <= 2  # ours, and one that huggingface_hub makes of its own


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (200, {}, "True True\n"),
        (404, {"X_Error_Code": "EntryNotFound"}, "False False\n"),
        (403, {"X_Error_Code": "GatedRepo"}, "refused\n"),
    ],
)
def test_hub_says_which_files_a_model_has(
    status: int, headers: dict[str, str], told: str, tmp_path: Path
) -> None:
    with hub(status, **headers) as endpoint:
        assert ask(endpoint, tmp_path, "has") == told
