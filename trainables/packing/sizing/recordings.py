"""How many CUDA graphs a pack will have recorded as its trials come and go, before it records any.

Shapes are chosen as in training, on the real rows; nothing is computed.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from trainables.config import TrialConfig
from trainables.data.batches import Batches
from trainables.packing.compute.pass_shapes import Shape, ShapeChoice
from trainables.packing.compute.slot import Slot

COUNTED_STEPS = 512
"""Steps that are played through. A sweep of 24 trials of 300 steps makes some 1,200, one of 64
trials of 900 steps some 2,600."""
HOLD_STEPS = 32
"""Steps between two changes of who trains, and where in the order of the rows."""

ShapesOf = Callable[[Mapping[int, Slot]], list[Shape]]
"""The shapes of the passes in which such slots would make their next step."""


def count_recordings(
    shapes_of: ShapesOf, batches: Batches, trials: Sequence[TrialConfig]
) -> dict[int, int]:
    """Graphs that are there after so many steps, by steps: powers of two.

    As in a sweep all trials begin together; later some of them train, each at a place of its own.
    On SAMSum rows and 22 slots 33 are foretold after 32 steps and 133 after 560; the sweep of 64
    trials that was measured had 39 after 56 steps and 162 after 560.
    """
    draw = random.Random(0)
    choice = ShapeChoice()
    recorded: set[Shape] = set()
    found: dict[int, int] = {}
    live = {place: Slot(trial, batches, 0) for place, trial in enumerate(trials)}
    for done in range(1, COUNTED_STEPS + 1):
        recorded.update(choice.among(recorded, one) for one in shapes_of(live) if one.recurs)
        if done.bit_count() == 1:
            found[done] = len(recorded)
        if done % HOLD_STEPS == 0:
            live = _redrawn(draw, batches, trials)
        else:
            for slot in live.values():
                slot.step = (slot.step + 1) % slot.trial.settings.max_steps
    return found


def _redrawn(
    draw: random.Random, batches: Batches, trials: Sequence[TrialConfig]
) -> dict[int, Slot]:
    """Some of the trials, each somewhere on its way."""
    num_live = draw.randint(1, len(trials))
    return {
        place: Slot(trial, batches, draw.randrange(trial.settings.max_steps))
        for place, trial in enumerate(trials[:num_live])
    }
