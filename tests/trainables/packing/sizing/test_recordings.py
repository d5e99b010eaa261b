"""Graphs that will be recorded, counted before any is: as a pack of these rows chooses them."""

import dataclasses

import pytest

from tests.trainables.packing.small_packs import longer, trial_of
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.packing.compute.packed_batch import shape_of, split_by_size
from trainables.packing.compute.pass_shapes import Shape, ShapeChoice
from trainables.packing.compute.slot import Slot
from trainables.packing.sizing.recordings import COUNTED_STEPS, HOLD_STEPS, count_recordings

MOST_TOKENS = 4096
KIND = Hyperparameters(lora_rank=4, lora_alpha=4, learning_rate=1e-3, lora_dropout=0.1)


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Steps enough to be anywhere."""
    return dataclasses.replace(longer(settings, 200), batch_size=8)


def shapes_of(slots: dict[int, Slot]) -> list[Shape]:
    """What a pack of three slots wants that records every pass."""
    micro_batches = [
        micro_batch
        for place, slot in slots.items()
        for micro_batch in slot.micro_batches(place, MOST_TOKENS)
    ]
    groups = split_by_size(
        micro_batches, [micro_batch.num_tokens for micro_batch in micro_batches], MOST_TOKENS
    )
    return [shape_of(micro_batches, 3, "recurring") for micro_batches in groups]


def test_first_steps_are_those_of_trials_that_begin_together(
    settings: TrainingSettings, examples: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trials = [trial_of(f"t{n}", KIND, settings, tmp_path_factory.mktemp("t")) for n in range(3)]
    batches = Batches(examples, settings)
    found = count_recordings(shapes_of, batches, trials)  # type: ignore[arg-type]
    choice, expected = ShapeChoice(), {}
    recorded: set[Shape] = set()
    for step in range(HOLD_STEPS):
        slots = {place: Slot(trial, batches, step) for place, trial in enumerate(trials)}
        recorded |= {choice.among(recorded, shape) for shape in shapes_of(slots)}
        expected[step + 1] = len(recorded)
    assert {steps: found[steps] for steps in (1, 2, 4, 8, 16, 32)} == {
        steps: expected[steps] for steps in (1, 2, 4, 8, 16, 32)
    }
    assert 1 < expected[32] < 32


def test_trials_that_come_and_go_bring_more_shapes_but_ever_fewer(
    settings: TrainingSettings, examples: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trials = [trial_of(f"t{n}", KIND, settings, tmp_path_factory.mktemp("t")) for n in range(3)]
    batches = Batches(examples, settings)
    found = count_recordings(shapes_of, batches, trials)  # type: ignore[arg-type]
    assert max(found) == COUNTED_STEPS and list(found.values()) == sorted(found.values())
    assert found[512] > found[32]
    assert (found[512] - found[256]) / 256 < found[32] / 32
    assert count_recordings(shapes_of, batches, trials) == found  # type: ignore[arg-type]


def test_passes_that_are_not_recorded_count_for_nothing(
    settings: TrainingSettings, examples: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trial = trial_of("t0", KIND, settings, tmp_path_factory.mktemp("t"))

    def exact(slots: dict[int, Slot]) -> list[Shape]:
        return [shape._replace(recurs=False) for shape in shapes_of(slots)]

    found = count_recordings(exact, Batches(examples, settings), [trial])  # type: ignore[arg-type]
    assert set(found.values()) == {0}
