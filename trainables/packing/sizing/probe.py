"""Measures a pack's pace before its first trial: a few steps and answers that leave no trace."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.batches import Batches
from trainables.data.rows import Row
from trainables.data.tokens import Example
from trainables.models.memory import free_memory, is_out_of_memory
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.pace import Pace
from trainables.packing.sizing.recordings import count_recordings

logger = logging.getLogger(__name__)

EvaluatorOf = Callable[[Sequence[Row], TrainingSettings], PackEvaluator]

PROBE_S = 4.0
"""Once so much has been spent on timed steps, what is left out is interpolated."""
EVAL_ROWS = 16
"""Rows of a trial in the measured evaluation, at most."""
EVAL_PLACES = 1 << 16
"""Places of all its rows: long rows are fewer."""
EVAL_TOKENS = 32
"""New tokens of the measured answers; longer ones take longer by their number."""
TRIAL_ID = "probe"


def measure_pace(
    pack: Pack,
    examples: Sequence[Example],
    rows: Sequence[Row],
    evaluator_of: EvaluatorOf,
    settings: TrainingSettings,
    capacity: Capacity,
    kinds: Sequence[Hyperparameters],
    *,
    device_name: str,
    load_s: float,
    warms_up: bool,
) -> Pace | None:
    """The pace of an empty pack; None where a step of all its slots does not fit in memory.

    Its trials stand in the slots as real ones do and are cleared as those are: no adapter, moment
    or random state is left of them. Kernels that are compiled or tuned, and graphs that are
    recorded, serve the trials that follow.

    Args:
        examples: the training rows.
        rows: validation rows of a report.
        evaluator_of: what scores rows with given settings.
        kinds: ranks and dropouts as the sweep's space has them, in turn for the slots.
        load_s: what loading took.
        warms_up: do everything once before it is timed, as a GPU needs it.
    """
    began_s = time.perf_counter()
    batches = Batches(examples, settings)
    trials = _trials(kinds, settings, capacity.num_slots)
    try:
        for slot, trial in enumerate(trials):
            pack.join(slot, trial, examples)
        launch_s, row_s, batch_rows = _evaluation(
            pack, rows, evaluator_of, settings, capacity, warms_up
        )
        step = mean_step(batches, settings.max_steps)
        steps_s, record_s = _steps(pack, step, capacity, warms_up)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("out of memory while the pace was measured: %s", error)
        pack.use_less_memory()
        return None
    finally:
        for slot in set(range(capacity.num_slots)) - set(pack.free_slots()):
            pack.leave(slot)
        free_memory()
    return Pace(
        device=device_name,
        num_slots=capacity.num_slots,
        load_s=load_s,
        steps_s=steps_s,
        launch_s=launch_s,
        row_s=row_s,
        batch_rows=batch_rows,
        record_s=record_s,
        recordings=count_recordings(pack.shapes_of, batches, trials) if record_s else {},
        probe_s=time.perf_counter() - began_s,
    )


def mean_step(batches: Batches, max_steps: int) -> int:
    """The step, counted from 1, whose tokens are nearest to the mean of all steps.

    Neither the first nor the last, if there are others: a step is as fast as it is in the midst of
    training if the one before has prepared it, and it prepares another.
    """
    mean = batches.tokens(max_steps) / max_steps
    return min(
        range(2, max_steps) if max_steps > 2 else range(1, max_steps + 1),
        key=lambda step: abs(batches.tokens(step) - batches.tokens(step - 1) - mean),
    )


def _trials(
    kinds: Sequence[Hyperparameters], settings: TrainingSettings, num_slots: int
) -> list[TrialConfig]:
    return [
        TrialConfig(trial_id=TRIAL_ID, params=params, settings=settings, folder=Path(TRIAL_ID))
        for params in islice(cycle(kinds), num_slots)
    ]


def _steps(
    pack: Pack, step: int, capacity: Capacity, warms_up: bool
) -> tuple[dict[int, float], float]:
    """Seconds of a step by the number of trials in it, and of recording a graph.

    Steps are those of all slots, of one, and, if time allows, of as many as a search has, or else
    of half. Before one is timed it is made once, so that kernels are there and graphs recorded;
    what that takes longer is shared among the graphs.
    """
    began_s = time.perf_counter()
    num_slots = capacity.num_slots
    few = capacity.num_searching
    middle = few if few is not None and few < num_slots else num_slots // 2
    wanted = sorted({1, max(1, middle), num_slots}, reverse=True)
    found: dict[int, float] = {}
    extra_s, num_graphs = 0.0, 0
    for num_live in wanted:
        for slot in range(num_live, num_slots):
            if slot not in pack.free_slots():
                pack.leave(slot)
        is_late = time.perf_counter() - began_s > PROBE_S
        if is_late and found and num_live != 1:
            continue
        first_s, num_before = 0.0, pack.num_captured
        if warms_up:
            _lead_to(pack, num_live, step)
            num_before = pack.num_captured
            first_s = _timed(pack.step)
        num_new = pack.num_captured - num_before
        _lead_to(pack, num_live, step)
        found[num_live] = _timed(pack.step)  # reads its losses, so it waits for the GPU
        if num_new:
            extra_s += max(0.0, first_s - found[num_live])
            num_graphs += num_new
    return found, extra_s / max(1, num_graphs)


def _lead_to(pack: Pack, num_live: int, step: int) -> None:
    """Make the step before, which prepares the next."""
    for slot in range(num_live):
        pack.seek(slot, max(0, step - 2))
    if step > 1:
        pack.step()


def _evaluation(
    pack: Pack,
    rows: Sequence[Row],
    evaluator_of: EvaluatorOf,
    settings: TrainingSettings,
    capacity: Capacity,
    warms_up: bool,
) -> tuple[float, float, int]:
    """Seconds a batch, seconds a row of one trial, and the rows that a batch holds.

    Answers are counted as long as targets are: an untuned base talks on, trained adapters do not.
    """
    whole = evaluator_of(rows[:EVAL_ROWS], settings)
    fitting = EVAL_PLACES // (capacity.num_slots * whole.row_tokens)
    rows = rows[: max(1, min(EVAL_ROWS, fitting))]
    few_rows = rows[: max(1, len(rows) // 4)]
    num_tokens = min(settings.max_new_tokens, whole.target_tokens)
    slots = range(capacity.num_slots)
    many_s = _answers_s(pack, slots, rows, evaluator_of, settings, num_tokens, warms_up)
    few_s = _answers_s(pack, slots[:1], few_rows, evaluator_of, settings, num_tokens, warms_up)
    more_rows = capacity.num_slots * len(rows) - len(few_rows)
    row_s = max(0.0, many_s - few_s) / max(1, more_rows)
    return (
        max(0.0, few_s - row_s * len(few_rows)),
        row_s,
        max(1, capacity.eval_tokens // whole.row_tokens),
    )


def _answers_s(
    pack: Pack,
    slots: Sequence[int],
    rows: Sequence[Row],
    evaluator_of: EvaluatorOf,
    settings: TrainingSettings,
    num_tokens: int,
    warms_up: bool,
) -> float:
    """Seconds in which slots answer with so many tokens, as far as a few tokens tell."""
    seconds = []
    lengths = sorted({1, min(num_tokens, EVAL_TOKENS)})
    for length in lengths:
        evaluator = evaluator_of(rows, replace(settings, max_new_tokens=length))
        if warms_up:
            evaluator.evaluate(pack.model, slots)
        seconds.append(_timed(partial(evaluator.evaluate, pack.model, slots)))
    if len(lengths) == 1:
        return seconds[0]
    token_s = max(0.0, seconds[1] - seconds[0]) / (lengths[1] - lengths[0])
    return seconds[0] + token_s * (num_tokens - lengths[0])


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
