"""What a trial's settings name is found on the node that reads them."""

import copy
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sweeps.example_facts import PARAMS, SETTINGS
from trainables import config
from trainables.config import TrialConfig
from trainables.tiny import MODEL_DIR


@pytest.mark.parametrize(
    ("model", "is_bundled"), [(str(MODEL_DIR), True), ("Qwen/Qwen3-0.6B", False), ("/m/a", False)]
)
def test_bundled_model_is_the_one_beside_the_package_that_reads_it(
    tmp_path: Path, model: str, is_bundled: bool
) -> None:
    settings = replace(SETTINGS, model=model)
    (tmp_path / "trainables").mkdir()
    for file in (config.__file__, Path(config.__file__).with_name("__init__.py")):
        shutil.copy(file, tmp_path / "trainables")
    ended = subprocess.run(
        [sys.executable, "-c", "import pickle, sys; print(pickle.load(sys.stdin.buffer).model)"],
        input=pickle.dumps(settings),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    there = str(tmp_path / "trainables" / "tiny" / "model") if is_bundled else model
    assert ended.stdout.decode().strip() == there
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_config_of_a_trial_is_not_copied_by_ray_tune() -> None:
    trial = TrialConfig(trial_id="t0", params=PARAMS, settings=SETTINGS, folder=Path("/run/t0"))
    assert copy.deepcopy({"trial": trial})["trial"] is trial
