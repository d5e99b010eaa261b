"""The process in which a user's metric runs: a script that nothing of this project is imported by.

`python -P process.py HANDLE` takes JSON requests from a pipe and answers each with JSON. The first
one is the metric; every other holds rows to score. Only the text of an error goes back: whatever
the metric does, it ends or fails here. It ends with the process that started it.
"""

import contextlib
import ctypes
import importlib
import inspect
import json
import math
import os
import re
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

PACKAGE = "users_metric"
KEY = re.compile(r"[A-Za-z0-9_]+")
POLL_MS = 200
"""How often it is looked whether the worker has ended."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
Rows = list[dict[str, Any]]
Score = Callable[[Rows], Any]


def main(handle: int) -> None:
    """Keeps a worker that answers requests, until it or the caller has gone; nothing is left then.

    A process apart is needed: no thread of the worker runs while a metric holds the GIL.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="metric-", ignore_cleanup_errors=True) as folder:
        keeper, worker = os.getpid(), os.fork()
        if worker == 0:
            _end_with_parent(keeper)
            _answer(Connection(handle), folder)
        try:
            with contextlib.suppress(OSError):  # the worker does so too, and may have ended
                os.setpgid(worker, worker)
            code = _wait(worker, handle)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker, signal.SIGKILL)  # with all that the metric has started
    if code < 0:
        with contextlib.suppress(OSError):  # of signals that cannot be handled
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _wait(worker: int, handle: int) -> int:
    """The exit code of the worker, or 0 as soon as the other end of the pipe is closed."""
    caller = select.poll()
    caller.register(handle, 0)  # a hang-up is told all the same
    while True:
        pid, status = os.waitpid(worker, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if caller.poll(POLL_MS):
            return 0


def _end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent dies; all it starts is in a group."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _answer(channel: Connection, folder: str) -> NoReturn:
    """Answers requests until the pipe is closed."""
    score: Score | None = None
    try:
        while True:
            request = json.loads(channel.recv_bytes())
            reply: dict[str, Any] = {}
            try:
                if "find" in request:
                    reply = {"files": find_module(request["find"], folder)}
                elif score is None:
                    score = load(request, Path(folder))
                else:
                    reply = {"scores": check(score(request["rows"]), len(request["rows"]))}
            except BaseException as error:  # the user's code may raise anything, or call sys.exit
                reply = {"error": describe(error)}
            channel.send_bytes(json.dumps(reply).encode())
    except (EOFError, OSError):
        os._exit(0)
    finally:
        os._exit(1)


def load(metric: dict[str, Any], folder: Path) -> Score:
    """The user's function, or what calls the module's compute.

    Args:
        metric: files (name to source, the main one first), function (None of a module) and labels.
        folder: where the files are written.
    """
    package = folder / PACKAGE
    package.mkdir()
    for name, source in metric["files"].items():
        (package / name).write_text(source, encoding="utf-8")
    main_name = next(iter(metric["files"]))
    sys.path.insert(0, str(folder))
    module = importlib.import_module(f"{PACKAGE}.{Path(main_name).stem}")
    if metric["function"] is None:
        return make_scorer(module, metric["labels"], folder)
    score: object = getattr(module, metric["function"], None)
    if not callable(score):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise LookupError(
            f"{main_name} has no function {metric['function']}; it has {', '.join(names) or 'none'}"
        )
    return score


def find_module(name: str, folder: str) -> dict[str, str]:
    """The files of a module that evaluate holds in its cache, the main one first."""
    import evaluate  # of the user's metric alone

    module = evaluate.load(name, keep_in_memory=True, cache_dir=folder)
    main_path = Path(inspect.getfile(type(module)))
    paths = [main_path, *sorted(set(main_path.parent.glob("*.py")) - {main_path})]
    return {p.name: p.read_text(encoding="utf-8") for p in paths if p.name != "__init__.py"}


def make_scorer(module: Any, labels: Sequence[str], folder: Path) -> Score:
    """What calls the compute of the module's metric with answers and references as it takes them.

    Where it takes whole numbers, they are the labels' places.
    """
    import evaluate

    classes: list[Any] = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, evaluate.EvaluationModule)
        and value.__module__ == module.__name__
    ]
    if not classes:
        raise LookupError("there is no metric of evaluate in it")
    metric: Any = classes[0](keep_in_memory=True, cache_dir=str(folder))
    metric.download_and_prepare()
    formats = metric.features if isinstance(metric.features, list) else [metric.features]
    features = formats[0]

    def convert(name: str, texts: Sequence[str]) -> Any:
        feature = features[name]
        if not hasattr(feature, "dtype") or isinstance(feature.dtype, list | dict):
            return list(texts)
        if feature.dtype.startswith(("int", "uint")):
            if not labels:
                raise TypeError(f"{name} are whole numbers, so the metric is one of labels")
            return labels.index(texts[0])
        return float(texts[0]) if feature.dtype.startswith("float") else texts[0]

    def score(rows: Rows) -> dict[str, Any]:
        said = [convert("predictions", [row["answer"]]) for row in rows]
        right = [convert("references", [row["target"], *row["references"]]) for row in rows]
        result = metric.compute(predictions=said, references=right)
        return {name: value for name, value in result.items() if isinstance(value, Real)}

    return score


def check(value: Any, num_rows: int) -> dict[str, Any]:
    """The scores as JSON: {"all": number}, {"by_key": ...} or {"rows": a number a row}."""
    if isinstance(value, Real):
        return {"all": _check_number(value, "it returned")}
    if isinstance(value, dict) and value:
        for key in value:
            if not isinstance(key, str) or not KEY.fullmatch(key):
                raise TypeError(f"it returned the key {key!r}; use letters of ASCII, digits and _")
        return {"by_key": {k: _check_number(v, f"{k} is") for k, v in value.items()}}
    if isinstance(value, list | tuple):
        if len(value) != num_rows:
            raise ValueError(f"it returned {len(value)} numbers for {num_rows} rows")
        return {"rows": [_check_number(v, f"row {n} got") for n, v in enumerate(value)]}
    raise TypeError(
        f"it returned {type(value).__name__}; return a number, a dict of numbers, or a list with a "
        "number a row"
    )


def _check_number(value: Any, where: str) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{where} {value!r:.60}, which is no number")
    if not math.isfinite(value):
        raise ValueError(f"{where} {float(value)}, which is not finite")
    return float(value)


def describe(error: BaseException) -> str:
    """The error's kind and text, and the line of the user's file that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if PACKAGE in f.filename]
    return (
        f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
