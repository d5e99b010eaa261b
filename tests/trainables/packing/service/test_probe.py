"""The measurement before the first trial tells the throughput and leaves no trace in any trial."""

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
from trainables.packing.service.probe import find_mean_step
from trainables.packing.sizing.throughput import Throughput, find_slowest

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
) -> tuple[Throughput | None, dict[str, list[tuple[float, dict[str, float]]]], dict[str, bytes]]:
    """Throughput, numbers and adapter files of two trials that enter together."""
    trials = [trial_of(f"t{n}", kind, settings, folder / f"t{n}") for n, kind in enumerate(KINDS)]
    options = {"probed": probed, "admit_wait_s": 60.0}
    with running(settings, capacity_of(2), **options) as host, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(functools.partial(events_of, host), trials))
        throughput = host.wait_for_throughput()
    numbers = {
        trial.trial_id: [(report.train_loss, report.metrics) for report in reports_in(events)]
        for trial, events in zip(trials, found, strict=True)
    }
    files = {
        trial.trial_id: (trial.folder / "checkpoint-6/adapter_model.safetensors").read_bytes()
        for trial in trials
    }
    return throughput, numbers, files


def test_trials_are_the_same_to_the_bit_with_and_without_a_probe(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    random_state = torch.random.get_rng_state()
    without, plain, plain_files = trained(settings, tmp_path / "plain", ())
    throughput, numbers, files = trained(settings, tmp_path / "probed", KINDS)
    assert without is None and throughput is not None
    assert list(numbers) == ["t0", "t1"] and all(len(one) == 2 for one in numbers.values())
    assert numbers == plain
    assert files == plain_files
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_the_throughput_has_what_an_estimate_needs_and_its_time_is_in_the_ledger(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    with running(settings, capacity_of(4), probed=KINDS) as host:
        throughput = host.wait_for_throughput()
        assert throughput is not None
        ledger = host.read_ledger()
    assert 0 < throughput.predict_step_s(1) <= throughput.predict_step_s(4)
    assert throughput.batch_fixed_s + throughput.row_s > 0 and throughput.batch_rows >= 1
    assert 0 < throughput.load_s <= ledger.seconds["load"] + 0.01
    assert throughput.probe_s == pytest.approx(ledger.seconds["probe"], rel=0.1)
    assert not ledger.shares


def test_a_pack_that_cannot_load_has_no_throughput(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    host = PackHost(dataclasses.replace(settings, model=str(tmp_path)), capacity_of(1))
    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(host.run)
        with pytest.raises(PackFault, match="ValueError"):
            host.wait_for_throughput()
        with pytest.raises(ValueError):
            loop.result()


def test_the_measured_step_is_of_mean_length(
    settings: TrainingSettings, examples: Sequence[object]
) -> None:
    settings = longer(settings, 20)
    batches = Batches(examples, settings)  # type: ignore[arg-type]
    tokens = [batches.count_tokens(step) - batches.count_tokens(step - 1) for step in range(1, 21)]
    mean = sum(tokens) / len(tokens)
    chosen = tokens[find_mean_step(batches, 20) - 1]
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
    throughput, numbers, _ = trained(settings, tmp_path, KINDS)
    assert throughput is None
    assert all(len(one) == 2 for one in numbers.values())


def throughput_of(**changes: object) -> Throughput:
    known: dict[str, object] = {
        "device": "cpu",
        "num_slots": 8,
        "load_s": 1.0,
        "step_fixed_s": 1.0,
        "step_trial_s": 0.5,
        "batch_fixed_s": 2.0,
        "row_s": 0.5,
        "batch_rows": 16,
        "probe_s": 1.0,
    }
    return Throughput(**known | changes)  # type: ignore[arg-type]


def test_a_step_costs_a_fixed_part_and_a_part_a_trial() -> None:
    assert [throughput_of().predict_step_s(n) for n in (1, 2, 8)] == [1.5, 2.0, 5.0]


def test_an_evaluation_costs_its_batches_and_its_rows() -> None:
    assert throughput_of().predict_eval_s(4, 10) == pytest.approx(3 * 2.0 + 40 * 0.5)
    assert throughput_of().predict_eval_s(32, 2) == pytest.approx(2 * 2.0 + 64 * 0.5)
    assert throughput_of().predict_eval_s(0, 10) == 0.0


def test_the_sweep_goes_by_its_slowest_pack() -> None:
    slow = throughput_of(step_trial_s=2.0)
    assert find_slowest([throughput_of(step_fixed_s=3.0), slow, throughput_of()]) is slow
