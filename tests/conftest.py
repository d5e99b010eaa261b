"""Markers by rule, the order of tests, and the one whole sweep that several tests look at."""

import fcntl
import gc
import json
import os
import shutil
import signal
import types
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from trainables.models.delta_kernels import prepare_fla
from trainables.process import COMPILES_NOTHING

if TYPE_CHECKING:
    from tests.sweeps.small_sweep import Finished

# Without a GPU Triton interprets the kernels; it reads this once, when something imports it. And
# nothing is compiled, for which bitsandbytes would load inductor.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    os.environ.update(COMPILES_NOTHING)
else:
    import torch  # a GPU's capability is not known without

    if torch.cuda.is_available():
        prepare_fla(torch.cuda.get_device_capability())  # before a test's module loads fla

# What a script starts with "&" ignores Ctrl-C, and so do its children, some of which get it here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest-xdist's workers are told of a terminal of 80 columns, which is not there.
os.environ.pop("COLUMNS", None)

# Nothing that is imported is garbage: looking for it costs seconds, until it is frozen below.
gc.disable()

# No example fails because a machine is slow. make fast has a quarter of the examples.
whole = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("whole", whole)
hypothesis.settings.register_profile("fast", whole, max_examples=25)
hypothesis.settings.load_profile("whole")

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
NO_CHROMIUM = "needs Chromium: apt-get install chromium"
NO_GPU = "needs an NVIDIA GPU, and torch with CUDA: make test-gpu"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Marks tests by what their module imports, and puts whole sweeps first for workers.

    A sweep mostly waits. Of two workers the first then runs the sweeps and the second all else,
    and whoever is done first takes over tests from the other's end (--dist worksteal). So no
    worker is left alone with a long test at the end.
    """
    for item in items:
        if _runs_sweeps(item):
            item.add_marker("sweep")
        if _imports(item, "ray"):
            item.add_marker("ray")
    if IS_WORKER:
        items.sort(key=lambda item: item.get_closest_marker("sweep") is None)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Finished":
    """Six trials of the bundled model and their finals, undisturbed; run by one worker for all.

    Two sets of target modules are searched, so trials of both share a pack.
    """
    from tests.sweeps import small_sweep  # loads Optuna, which few tests need

    base = tmp_path_factory.getbasetemp()
    runs_dir = (base.parent if IS_WORKER else base) / "finished-runs"
    runs_dir.mkdir(exist_ok=True)
    ended = runs_dir / "ended.json"
    with (runs_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            flags = (*small_sweep.WITH_FINALS, "--num-trials", "6")
            ended.write_text(json.dumps(small_sweep.run(runs_dir, "whole", *flags)))
    code, output = json.loads(ended.read_text())
    return small_sweep.Finished(runs_dir, "whole", runs_dir / "whole", 6, code, output)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs a GPU or Chromium is shown as skipped where there is none."""
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip(NO_GPU)
    if item.get_closest_marker("browser") and not CHROMIUM:
        pytest.skip(NO_CHROMIUM)


def _runs_sweeps(item: pytest.Function) -> bool:
    return _imports(item, "tests.sweeps.small_sweep") or "finished" in item.fixturenames


def _imports(item: pytest.Function, module: str) -> bool:
    """Whether the test's module has the module under any name."""
    values = vars(item.module).values()
    return any(isinstance(value, types.ModuleType) and value.__name__ == module for value in values)


def _has_gpu() -> bool:
    import torch  # only tests of GPUs come here

    return torch.cuda.is_available()
