"""Files of the Hub: from the cache without it, and an answer in time whatever it says."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest

from trainables.models import hub_files

CODE = """
import sys
from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file, hub_has
from trainables.models.model_facts import read_model_facts
from trainables.config import TaskOptions
from trainables.data.tasks import TASKS
try:
    if sys.argv[1] == "file":
        print(hub_file("owner/name", "config.json").read_text())
    elif sys.argv[1] == "has":
        try:
            print(hub_has("owner/name", "config.json"), hub_has("owner/name", "other.json"))
        except OSError as refused:
            print("refused")
    elif sys.argv[1] == "model":
        read_model_facts("owner/name")
    else:
        TASKS["samsum"](TaskOptions()).load(None)
except SweepAborted as told:
    print(told)
"""


@contextmanager
def hub(status: int, **headers: str) -> Iterator[str]:
    """A server that answers everything with one status; "/" alone is always there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
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


def ask(what: str, endpoint: str, home: Path) -> tuple[str, float]:
    """What a new process prints that asks the Hub for something, and the seconds it took."""
    environment = os.environ | {
        "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CODE, what], env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, time.monotonic() - began


@pytest.mark.parametrize("what", ["model", "data"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [(404, {"X_Error_Code": "RepoNotFound"}), (404, {"X_Error_Code": "EntryNotFound"}),
     (403, {"X_Error_Code": "GatedRepo"}), (401, {})],
)  # fmt: skip
def test_refusal_of_the_hub_is_told_in_time(
    status: int, headers: dict[str, str], what: str, tmp_path: Path
) -> None:
    with hub(status, **headers) as endpoint:
        told, seconds = ask(what, endpoint, tmp_path)
    assert told.startswith(
        "error: the model owner" if what == "model" else "error: cannot download"
    )
    assert "--model DIR" in told or "--data DIR" in told
    assert seconds < 10


def test_a_hub_that_does_not_answer_in_time_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(*_: object, **__: object) -> None:
        raise hub_files._http_error()("timed out")

    monkeypatch.setattr(hub_files, "hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", late)
    with pytest.raises(ConnectionError, match="timed out"):
        hub_files.dataset_files("owner/name", "main")


def test_cache_is_used_without_a_hub(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    commit = "0" * 40
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "config.json").write_text("cached")
    told, seconds = ask("file", "http://127.0.0.1:9", tmp_path)
    assert told == "cached\n"
    assert seconds < 5
    assert ask("has", "http://127.0.0.1:9", tmp_path)[0] == "True False\n"


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [(200, {}, "True True\n"), (404, {"X_Error_Code": "EntryNotFound"}, "False False\n"),
     (403, {"X_Error_Code": "GatedRepo"}, "refused\n")],
)  # fmt: skip
def test_hub_says_which_files_a_model_has(
    status: int, headers: dict[str, str], told: str, tmp_path: Path
) -> None:
    with hub(status, **headers) as endpoint:
        assert ask("has", endpoint, tmp_path)[0] == told
