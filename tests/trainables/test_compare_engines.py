"""A trial trained again is the trial, only dropout follows its seed, and distances are exact."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.trainables.packing.small_packs import trial_of
from trainables.compare_engines import WEIGHTS_NAME, measure_adapter_distances, train_until
from trainables.config import Hyperparameters, TrainingSettings, TrialReport

ZERO = np.zeros((2, 2), np.float32)


def losses(reports: list[TrialReport]) -> list[float]:
    return [value for r in reports for value in (r.train_loss, r.metrics["eval_loss"])]


def test_training_ends_at_the_step_and_its_schedule_spans_the_budget(
    params: Hyperparameters, settings: TrainingSettings, tmp_path: Path
) -> None:
    whole = train_until("solo", trial_of("t", params, settings, tmp_path / "a"), 4)
    part = train_until("solo", trial_of("t", params, settings, tmp_path / "b"), 2)
    assert [report.step for report in whole] == [2, 4]
    assert [report.step for report in part] == [2]
    assert losses(part) == losses(whole[:1])
    assert part[0].learning_rate == whole[0].learning_rate > whole[1].learning_rate
    assert (part[0].checkpoint / WEIGHTS_NAME).is_file()


@pytest.mark.slow
def test_seed_moves_dropout_and_nothing_else(
    params: Hyperparameters, settings: TrainingSettings, tmp_path: Path
) -> None:
    without = dataclasses.replace(params, lora_dropout=0.0)
    own, other = settings.seed, settings.seed + 1
    reports = {
        (name, seed): train_until(
            "solo", trial_of("t", p, settings, tmp_path / f"{name}{seed}"), 4, dropout_seed=seed
        )
        for name, p in (("dropout", params), ("none", without))
        for seed in (own, other)
    }
    plain = train_until("solo", trial_of("t", params, settings, tmp_path / "plain"), 4)
    assert losses(reports["none", own]) == losses(reports["none", other])
    assert losses(reports["dropout", own]) == losses(plain)
    assert losses(reports["dropout", other]) != losses(plain)


@pytest.mark.parametrize("engine", ["solo", "packed"])
def test_both_engines_give_the_same_without_dropout(
    engine: Literal["solo", "packed"],
    params: Hyperparameters,
    settings: TrainingSettings,
    tmp_path: Path,
) -> None:
    params = dataclasses.replace(params, lora_dropout=0.0)
    first = train_until("solo", trial_of("t", params, settings, tmp_path / "a"), 4)
    again = train_until(engine, trial_of("t", params, settings, tmp_path / "b"), 4)
    assert losses(again) == pytest.approx(losses(first), rel=1e-5)
    assert (
        max(measure_adapter_distances(first[-1].checkpoint, again[-1].checkpoint).values()) < 1e-3
    )


def test_distance_is_relative_to_the_matrix(tmp_path: Path) -> None:
    near = np.float32([[3.0, 4.0], [0.0, 0.0]])
    moved = near + np.float32([[0.0, 1.0], [0.0, 0.0]])
    one = write(tmp_path / "one", {"a": near, "b": 100 * near, "c": ZERO})
    other = write(tmp_path / "other", {"a": moved, "b": 102 * near, "c": ZERO})
    assert measure_adapter_distances(one, other) == pytest.approx({"a": 0.2, "b": 0.02, "c": 0.0})


def test_matrix_that_should_be_zero_is_infinitely_far(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": ZERO})
    other = write(tmp_path / "other", {"a": ZERO + 1e-9})
    with np.errstate(divide="ignore"):
        assert measure_adapter_distances(one, other) == {"a": float("inf")}


@pytest.mark.parametrize("other", [{"b": ZERO}, {"a": ZERO[:1]}, {}])
def test_adapters_of_other_shapes_are_not_compared(
    other: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folders = write(tmp_path / "one", {"a": ZERO}), write(tmp_path / "other", other)
    with pytest.raises(ValueError, match="differ in their matrices"):
        measure_adapter_distances(*folders)


def write(folder: Path, adapter: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    save_file({n: np.float32(w) for n, w in adapter.items()}, folder / WEIGHTS_NAME)
    return folder
