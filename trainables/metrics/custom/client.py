"""Scores by a user's metric, from a process of its own that starts at its first use."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from trainables.data.rows import MetricCode, Row
from trainables.errors import TrialFailed
from trainables.metrics.registry import is_reserved

SCRIPT = Path(__file__).with_name("process.py")
TIMEOUT_S = 600.0
"""Longest time for the rows of one report. A pack's GPU waits for it."""
ALONE = {"CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"} | dict.fromkeys(
    ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE", "HF_DATASETS_OFFLINE"), "1"
)
"""A GPU's memory is planned without it, and no node downloads what a metric would like."""


def score_custom(
    metrics: Sequence[MetricCode],
    rows: Sequence[Row],
    answers: Sequence[str],
    labels: Sequence[str],
    *,
    timeout_s: float = TIMEOUT_S,
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    """The scores of all metrics by name, and each row's own where a metric gives them.

    Raises:
        TrialFailed: a metric crashed, hung or gave what is no number; says which and why.
    """
    totals: dict[str, float] = {}
    by_row: dict[str, tuple[float, ...]] = {}
    for metric in metrics:
        running = metric, tuple(labels), timeout_s
        if running not in _RUNNING:
            _RUNNING[running] = MetricProcess(*running)
        scores = _RUNNING[running].score(rows, answers)
        if "rows" in scores:
            by_row[metric.name] = tuple(scores["rows"])
            totals[metric.name] = sum(scores["rows"]) / len(scores["rows"])
        elif "all" in scores:
            totals[metric.name] = scores["all"]
        else:
            keys = scores["by_key"]
            # one number of evaluate's needs no key to be told by
            if metric.function is None and metric.key is None and len(keys) == 1:
                keys = {"": next(iter(keys.values()))}
            named = {f"{metric.name}_{key}" if key else metric.name: keys[key] for key in keys}
            taken = sorted(name for name in named if name in totals or is_reserved(name))
            if taken:
                raise TrialFailed(
                    f"the metric {metric.name} failed: its {taken[0]} is another score's name"
                )
            totals |= named
        if metric.ranking_name not in totals:
            raise TrialFailed(f"the metric {metric.name} failed: {_describe_keys(metric, scores)}")
    return totals, by_row


def end_processes() -> None:
    """Ends what score_custom has started; it starts anew when it is needed."""
    for process in _RUNNING.values():
        process.end()


atexit.register(end_processes)


def _describe_keys(metric: MetricCode, scores: dict[str, Any]) -> str:
    """Why none of the scores is the one that was asked for."""
    keys = ", ".join(scores.get("by_key", ()))
    if not keys:
        return f"it gives no dict, so it has no {metric.key}"
    if metric.key is None:
        return f"it gives {keys}, of which none was named"
    return f"it gives {keys}, and no {metric.key}"


class MetricProcess:
    """A process that one metric runs in; it starts anew after a crash."""

    def __init__(self, metric: MetricCode, labels: Sequence[str], timeout_s: float) -> None:
        self._metric, self._labels, self._timeout_s = metric, list(labels), timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def score(self, rows: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
        """What process.check gives of the metric's scores.

        Raises:
            TrialFailed: the metric gave none; says why.
        """
        if self._process is None:
            code = {"files": self._metric.files, "function": self._metric.function}
            self._start()
            self._ask(code | {"labels": self._labels})
        plain_rows = [
            {
                "prompt": row.prompt,
                "answer": answer,
                "target": row.target,
                "references": list(row.references),
            }
            for row, answer in zip(rows, answers, strict=True)
        ]
        scores: dict[str, Any] = self._ask({"rows": plain_rows})["scores"]
        return scores

    def find_files(self, module: str) -> dict[str, str]:
        """The files of a module of evaluate that is in its cache.

        Raises:
            TrialFailed: it is not.
        """
        self._start()
        files: dict[str, str] = self._ask({"find": module})["files"]
        return files

    def end(self) -> None:
        """Ends the process, if it runs: a closed pipe has it kill the metric and tidy up."""
        if self._process is not None:
            self._channel.close()
            self._wait()
            self._process = None

    def _start(self) -> None:
        self._channel, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | ALONE,
        )
        theirs.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        reply: dict[str, Any] = {}
        try:
            self._channel.send_bytes(json.dumps(request).encode())
            if not self._channel.poll(self._timeout_s):
                reply = {"error": f"it gave nothing for {self._timeout_s:.0f} s"}
            else:
                reply = json.loads(self._channel.recv_bytes())
        except (EOFError, OSError):
            code = self._wait()
            what = f"signal {-code}" if code < 0 else f"exit code {code}"
            reply = {"error": f"its process ended with {what}"}
        if "error" in reply:
            self.end()
            raise TrialFailed(f"the metric {self._metric.name} failed: {reply['error']}")
        return reply

    def _wait(self) -> int:
        """The exit code of the process, whose pipe is closed."""
        assert self._process is not None
        try:
            return self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


_RUNNING: dict[tuple[MetricCode, tuple[str, ...], float], MetricProcess] = {}
"""By metric, labels and timeout."""
