"""A pack that is to end saves its trials where they stand, and they go on exactly elsewhere."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packing.small_hosts import (
    KINDS,
    STEPS,
    Numbers,
    capacity_of,
    change_pack,
    of_six_steps,
    reports_in,
    running_once_full,
    trials_of,
    wait_until,
)
from trainables.checkpoint import PROGRESS_NAME, read_last_report, read_progress
from trainables.config import TrainingSettings, TrialConfig
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.slot import StepResult
from trainables.packing.service.events import Event, Finished, PackPreempted
from trainables.packing.service.host import PackHost
from trainables.packing.service.loop import PackLoop
from trainables.packing.service.packed_trial import PackedTrial

KINDS_OF_PACK = KINDS[:2]
REASON = "its node is to end"


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Six steps with three reports."""
    return of_six_steps(settings)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Numbers]:
    """By trial, what the pack gives when nobody disturbs it; filled by the first test."""
    return {}


def follow(host: PackHost, trial: TrialConfig) -> list[Event]:
    """What happens to a trial up to its pack's or its own end."""
    lease = host.join(trial)
    events: list[Event] = []
    while not events or events[-1] != Finished():
        try:
            event = host.take_event(lease, 60.0)
        except PackPreempted:
            return events
        assert event is not None, "nothing happened for a minute"
        events.append(event)
    return events


def train_all(
    settings: TrainingSettings,
    trials: Sequence[TrialConfig],
    preempted_after: int | None = None,
    *,
    is_scored: bool = False,
) -> tuple[dict[str, Numbers], list[int]]:
    """Trains in one pack, which is preempted after so many of its steps, or in the evaluation that
    follows; by trial what it reported, and the steps that the first trial made."""
    made: list[StepResult] = []
    hosts: list[PackHost] = []

    def preempt_after_step(pack: Pack) -> None:
        step = pack.step

        def stepped(most: int) -> Any:
            results = step(most)
            made.extend(results)
            if len(made) == (preempted_after or 0) * len(trials):
                if is_scored:
                    patch.setattr(PackLoop, "_evaluate_trials", preempt_and_evaluate)
                else:
                    hosts[0].preempt(REASON, 0.0)
            return results

        pack.step = stepped  # type: ignore[method-assign]

    evaluate = PackLoop._evaluate_trials

    def preempt_and_evaluate(loop: PackLoop, due: Sequence[PackedTrial]) -> Any:
        hosts[0].preempt(REASON, 0.0)
        return evaluate(loop, due)

    with pytest.MonkeyPatch.context() as patch:
        change_pack(patch, preempt_after_step)
        try:
            with running_once_full(settings, capacity_of(len(trials))) as host:
                hosts.append(host)
                with ThreadPoolExecutor(len(trials)) as pool:
                    found = list(pool.map(functools.partial(follow, host), trials))
        except PackPreempted as preempted:
            assert preempted_after is not None and REASON in str(preempted)
    numbers: dict[str, Numbers] = {
        trial.trial_id: {r.step: (r.train_loss, r.metrics) for r in reports_in(events)}
        for trial, events in zip(trials, found, strict=True)
    }
    return numbers, [result.step for result in made if result.trial_id == trials[0].trial_id]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "is_scored"),
    [(1, False), (STEPS[1], False), (STEPS[1], True), (5, False), (STEPS[-1], True)],
)
def test_trials_of_a_preempted_pack_go_on_at_the_next_step_as_if_nothing_had_been(
    settings: TrainingSettings,
    tmp_path: Path,
    undisturbed: dict[str, Numbers],
    step: int,
    is_scored: bool,
) -> None:
    if not undisturbed:
        expected, _ = train_all(settings, trials_of(settings, tmp_path / "whole", KINDS_OF_PACK))
        undisturbed |= expected
    trials = trials_of(settings, tmp_path, KINDS_OF_PACK)
    before, steps = train_all(settings, trials, preempted_after=step, is_scored=is_scored)
    assert steps == list(range(1, step + 1))
    last, progress = read_last_report(trials[0].folder), read_progress(trials[0].folder)
    assert progress is not None and progress.step == step  # also at a rung: it is scored later
    after, steps = train_all(settings, trials)
    assert steps == list(range(step + 1, STEPS[-1] + 1))
    for trial_id, numbers in undisturbed.items():
        assert before[trial_id] | after[trial_id] == numbers
        # Beside what is new, only the last report is sent again.
        assert before[trial_id].keys() & after[trial_id].keys() == ({last.step} if last else set())
    for trial in trials:
        assert not list(trial.folder.rglob(PROGRESS_NAME))


def test_trial_that_is_saved_counts_before_the_next_one_is(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []

    def save_after_mark(pack: Pack) -> None:
        save = pack.save

        def save_next(slot: int, folder: Path, *args: Any) -> None:
            if saved:
                wait_until((saved[0] / PROGRESS_NAME).is_file)
            save(slot, folder, *args)
            saved.append(folder)

        pack.save = save_next  # type: ignore[method-assign]

    change_pack(monkeypatch, save_after_mark)
    train_all(settings, trials_of(settings, tmp_path, KINDS_OF_PACK), preempted_after=1)
    assert len(saved) == len(KINDS_OF_PACK)
