"""The measurement before the first trial tells the pace and leaves no trace in any trial."""

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.trainables.packing.service.test_host import capacity_of, events_of, reports_in, running
from tests.trainables.packing.small_packs import longer, trial_of
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.batches import Batches
from trainables.packing.compute.pack import Pack
from trainables.packing.service.events import PackFault
from trainables.packing.service.host import PackHost
from trainables.packing.sizing.pace import Pace
from trainables.packing.sizing.probe import mean_step

KINDS = (
    Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=3e-3, lora_dropout=0.1),
    Hyperparameters(lora_rank=16, lora_alpha=16, learning_rate=5e-4),
)


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Six steps with two reports."""
    return dataclasses.replace(settings, max_steps=6, rungs=(2, 6), eval_rows=3)


def trained(
    settings: TrainingSettings, folder: Path, probed: Sequence[Hyperparameters]
) -> tuple[Pace | None, dict[str, list[tuple[float, dict[str, float]]]], dict[str, bytes]]:
    """Pace, numbers and adapter files of two trials that enter together."""
    trials = [trial_of(f"t{n}", kind, settings, folder / f"t{n}") for n, kind in enumerate(KINDS)]
    options = {"probed": probed, "admit_wait_s": 60.0}
    with running(settings, capacity_of(2), **options) as host, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(functools.partial(events_of, host), trials))
        pace = host.pace()
    numbers = {
        trial.trial_id: [(report.train_loss, report.metrics) for report in reports_in(events)]
        for trial, events in zip(trials, found, strict=True)
    }
    files = {
        trial.trial_id: (trial.folder / "checkpoint-6/adapter_model.safetensors").read_bytes()
        for trial in trials
    }
    return pace, numbers, files


def test_trials_are_the_same_to_the_bit_with_and_without_a_probe(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    random_state = torch.random.get_rng_state()
    without, plain, plain_files = trained(settings, tmp_path / "plain", ())
    pace, numbers, files = trained(settings, tmp_path / "probed", KINDS)
    assert without is None and pace is not None
    assert list(numbers) == ["t0", "t1"] and all(len(one) == 2 for one in numbers.values())
    assert numbers == plain
    assert files == plain_files
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_the_pace_has_what_an_estimate_needs_and_its_time_is_in_the_ledger(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    with running(settings, capacity_of(4), probed=KINDS) as host:
        pace = host.pace()
        assert pace is not None
        ledger = host.ledger()
    assert sorted(pace.steps_s) == [1, 2, 4]
    assert all(seconds > 0 for seconds in pace.steps_s.values())
    assert pace.launch_s + pace.row_s > 0 and pace.batch_rows >= 1
    assert 0 < pace.load_s <= ledger.seconds["load"] + 0.01
    assert pace.probe_s == pytest.approx(ledger.seconds["probe"], rel=0.1)
    assert not ledger.shares


def test_steps_are_timed_with_as_many_trials_as_a_search_has(settings: TrainingSettings) -> None:
    capacity = dataclasses.replace(capacity_of(4), num_searching=3)
    with running(settings, capacity, probed=KINDS) as host:
        pace = host.pace()
    assert pace is not None and set(pace.steps_s) == {1, 3, 4}


def test_a_pack_that_cannot_load_has_no_pace(settings: TrainingSettings, tmp_path: Path) -> None:
    host = PackHost(dataclasses.replace(settings, model=str(tmp_path)), capacity_of(1))
    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(host.run)
        with pytest.raises(PackFault, match="ValueError"):
            host.pace()
        with pytest.raises(ValueError):
            loop.result()


def test_the_measured_step_is_of_mean_length(
    settings: TrainingSettings, examples: Sequence[object]
) -> None:
    settings = longer(settings, 20)
    batches = Batches(examples, settings)  # type: ignore[arg-type]
    tokens = [batches.tokens(step) - batches.tokens(step - 1) for step in range(1, 21)]
    mean = sum(tokens) / len(tokens)
    chosen = tokens[mean_step(batches, 20) - 1]
    assert abs(chosen - mean) == min(abs(one - mean) for one in tokens[1:-1])
    assert len(set(tokens)) > 1


def test_a_probe_that_runs_out_of_memory_is_left_out_and_the_trials_train(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Pack.step
    calls: list[int] = []

    def failing(pack: Pack, most: int = 1) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("of the test")
        return step(pack, most)

    monkeypatch.setattr(Pack, "step", failing)
    pace, numbers, _ = trained(settings, tmp_path, KINDS)
    assert pace is None
    assert all(len(one) == 2 for one in numbers.values())


def pace_of(**changes: object) -> Pace:
    known: dict[str, object] = {
        "device": "cpu", "num_slots": 8, "load_s": 1.0, "steps_s": {1: 1.0, 4: 2.0, 8: 6.0},
        "launch_s": 2.0, "row_s": 0.5, "batch_rows": 16, "probe_s": 1.0,
    }  # fmt: skip
    return Pace(**known | changes)  # type: ignore[arg-type]


def test_steps_are_linear_between_what_was_measured_and_never_faster_for_more_trials() -> None:
    assert [pace_of().step_s(n) for n in (1, 2, 4, 6, 8, 16)] == pytest.approx(
        [1.0, 4 / 3, 2.0, 4.0, 6.0, 12.0]
    )
    noisy = pace_of(steps_s={1: 3.0, 4: 2.0, 8: 6.0})
    seconds = [noisy.step_s(n) for n in range(1, 12)]
    assert seconds == sorted(seconds)


def test_recording_costs_what_is_new_and_beyond_what_is_known_as_much_a_doubling() -> None:
    pace = pace_of(record_s=0.5, recordings={1: 2, 2: 4, 4: 5})
    assert pace.recording_s(0, 1) == 1.0 and pace.recording_s(0, 4) == 2.5
    assert pace.recording_s(1, 2) == pytest.approx(0.5 * (4.5 - 2))
    assert pace.recording_s(0, 8) == pytest.approx(0.5 * 6)
    assert pace.recording_s(8, 8) == pytest.approx(0.5)
    assert pace.recording_s(4, 0) == 0.0 and pace_of(record_s=0.5).recording_s(0, 9) == 0.0


def test_an_evaluation_costs_its_batches_and_its_rows() -> None:
    assert pace_of().evaluation_s(4, 10) == pytest.approx(3 * 2.0 + 40 * 0.5)
    assert pace_of().evaluation_s(32, 2) == pytest.approx(2 * 2.0 + 64 * 0.5)
    assert pace_of().evaluation_s(0, 10) == 0.0
