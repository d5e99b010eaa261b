"""A user's own recipe file, run as a whole sweep."""

import csv
import json
from pathlib import Path

import pytest

from tests.sweeps.commands import start

pytestmark = pytest.mark.sweep

RECIPE = """
from dataclasses import replace
from sweeps.recipes import samsum

def recipe(is_tiny):
    small = dict(batch_size=2, micro_batch_size=2, eval_rows=2, eval_batch_size=2)
    return replace(samsum(is_tiny), num_trials=1, max_steps=2, num_rungs=1, max_new_tokens=2,
                   name="mine", **small)
"""


def test_own_recipe_sweeps_the_bundled_model(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RECIPE)
    flags = ("--tiny", "--wandb", "disabled", "--no-finals", "--no-estimate")
    ended = start("sweeps.run", "mine.py", *flags, folder=tmp_path)
    assert ended.code == 0, ended.stderr
    run = tmp_path / "runs" / "mine"
    with (run / "trials.csv").open() as file:
        (trial,) = csv.DictReader(file)
    assert trial["status"] == "completed"
    config = json.loads((run / "sweep.json").read_text())["config"]
    assert (config["recipe"], config["num_trials"]) == ("mine.py", 1)
    assert (run / "best" / "adapter_model.safetensors").is_file()
