"""run_sweep in a real Jupyter kernel: one table, an interrupt that kills nothing, a second run."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from sweeps.records.events import read_events
from tests.sweeps import small_sweep
from tests.sweeps.commands import world

FLAGS = {
    **{"tiny": True, "num_trials": 2, "max_steps": 3, "num_rungs": 2, "eval_rows": 4},
    **{"max_new_tokens": 4, "compute_dtype": "float32", "batch_size": 2, "micro_batch_size": 2},
    **{"finals": False, "estimate": False, "name": "mine"},
}
BEFORE = """
import gc, json, logging, os, psutil, signal, sys, threading
def look():
    return {
        "environment": dict(os.environ),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "logging": [str(logging.root.handlers), logging.root.manager.disable],
        "stdout": str(sys.stdout), "frozen": gc.get_freeze_count(),
        "children": [child.name() for child in psutil.Process().children()],
    }
before = look()
from sweeps import run_sweep
"""
CHANGED = "print(json.dumps({k: [v, look()[k]] for k, v in before.items() if look()[k] != v}))"


@dataclass
class Notebook:
    """A kernel and its client."""

    manager: KernelManager
    client: BlockingKernelClient

    def run(self, code: str) -> list[dict[str, Any]]:
        """What one cell shows, with the kind of each message."""
        shown: list[dict[str, Any]] = []

        def take(message: dict[str, Any]) -> None:
            if message["msg_type"] not in ("status", "execute_input"):
                shown.append({"kind": message["msg_type"]} | message["content"])

        self.client.execute_interactive(code, timeout=small_sweep.LIMIT_S, output_hook=take)
        return shown

    def interrupt_at(self, events: Path, kind: str) -> None:
        """Ctrl-C once the log has an event of this kind."""

        def wait() -> None:
            deadline_s = time.monotonic() + small_sweep.LIMIT_S
            while time.monotonic() < deadline_s:
                if events.is_file() and small_sweep.count(read_events(events), kind):
                    return self.manager.interrupt_kernel()
                time.sleep(0.1)
            return None

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    manager, client = start_new_kernel(cwd=str(tmp_path), env=world(tmp_path))
    yield Notebook(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_notebook_shows_one_table_and_lives_on_after_an_interrupt(
    notebook: Notebook, tmp_path: Path
) -> None:
    assert notebook.run(BEFORE) == []
    notebook.interrupt_at(tmp_path / "runs" / "mine" / "events.jsonl", "report")
    words = ", ".join(f"{name}={value!r}" for name, value in FLAGS.items())
    *shown, ended = notebook.run(f"run_sweep('samsum', {words})")
    assert {message["kind"] for message in shown} == {"display_data", "update_display_data"}
    assert ended["ename"] == "KeyboardInterrupt", ended
    command = "run_sweep('samsum', tiny=True, name='mine', resume=True)"
    assert ended["evalue"] == f"go on with: {command}"

    shown = notebook.run(f"run = {command}")
    first, *others = shown
    assert first["kind"] == "display_data" and others, shown
    place = first["transient"]["display_id"]
    for message in others:
        assert message["kind"] == "update_display_data", message
        assert message["transient"]["display_id"] == place
    last = others[-1]["data"]
    assert last["text/html"].startswith("<pre") and "2/2 done" in last["text/plain"]

    (told,) = notebook.run(CHANGED)
    assert json.loads(told["text"]) == {}
    (shape,) = notebook.run("run.to_pandas().shape[0], run.best.trial_id == run.adapter_id")
    assert shape["data"]["text/plain"] == "(2, True)"
    small_sweep.check_whole(tmp_path / "runs" / "mine", "mine", 2)
    *_, refused = notebook.run("run_sweep('samsum', num_trails=3)")
    fix = "fix: perhaps you meant num_trials"
    assert refused["traceback"] == [
        "error: run_sweep has no keyword 'num_trails'",
        fix,
    ]
