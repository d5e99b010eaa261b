"""Measures a pack's throughput before its first trial, with a few steps and answers."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from trainables.config import Hyperparameters, TrialConfig
from trainables.data.batches import Batches
from trainables.data.rows import Row
from trainables.models.base_model import get_device
from trainables.models.memory import free_memory, is_out_of_memory
from trainables.packing.compute.pack import Pack
from trainables.packing.service.ledger import LedgerKeeper
from trainables.packing.service.loading import LoadedPack, get_device_name
from trainables.packing.sizing.throughput import Throughput

logger = logging.getLogger(__name__)

EVAL_ROWS = 16
"""Rows of a trial in the measured evaluation, at most."""
EVAL_POSITIONS = 1 << 16
"""Positions of all its rows: long rows are fewer."""
EVAL_TOKENS = 32
"""New tokens of the measured answers; longer ones take longer by their number."""
TRIAL_ID = "probe"


def measure_throughput(
    loaded: LoadedPack, params: Sequence[Hyperparameters], ledger: LedgerKeeper
) -> Throughput | None:
    """Times an empty pack; None without params, or where a step of all slots does not fit.

    The probe's trials stand in the slots as real ones do and are cleared as those are: no adapter,
    moment or random state is left of them. Kernels that are compiled or tuned, and graphs that are
    captured, serve the trials that follow. On a GPU everything is done once before it is timed.

    Args:
        params: ranks and dropouts as the sweep's space has them, in turn for the slots.
    """
    if not params:
        return None
    load_s = ledger.copy_ledger().wall_s
    ledger.begin_activity("probe")
    began_s = time.perf_counter()
    pack, examples, settings = loaded.pack, loaded.examples, loaded.settings
    num_slots, num_tries = loaded.capacity.num_slots, 2 if get_device().type == "cuda" else 1
    try:
        for slot, trial_params in enumerate(islice(cycle(params), num_slots)):
            trial = TrialConfig(
                trial_id=TRIAL_ID, params=trial_params, settings=settings, folder=Path(TRIAL_ID)
            )
            pack.join(slot, trial, examples)
        batch_fixed_s, row_s, batch_rows = _time_evaluation(loaded, num_tries)
        step = find_mean_step(Batches(examples, settings), settings.max_steps)
        all_s, capture_s = _time_step(pack, num_slots, step, num_tries)
        for slot in range(1, num_slots):
            pack.leave(slot)
        one_s, _ = _time_step(pack, 1, step, num_tries)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("out of memory while the throughput was measured: %s", error)
        pack.use_less_memory()
        return None
    finally:
        for slot in set(range(num_slots)) - set(pack.free_slots()):
            pack.leave(slot)
        free_memory()
    step_trial_s = max(0.0, all_s - one_s) / max(1, num_slots - 1)
    return Throughput(
        device=get_device_name(),
        num_slots=num_slots,
        load_s=load_s,
        step_fixed_s=max(0.0, one_s - step_trial_s),
        step_trial_s=step_trial_s,
        capture_s=capture_s,
        batch_fixed_s=batch_fixed_s,
        row_s=row_s,
        batch_rows=batch_rows,
        probe_s=time.perf_counter() - began_s,
    )


def find_mean_step(batches: Batches, max_steps: int) -> int:
    """The step, counted from 1, whose tokens are nearest to the mean of all steps.

    Neither the first nor the last, if there are others: a step is as fast as it is in the midst of
    training if the one before has prepared it, and it prepares another.
    """
    mean = batches.count_tokens(max_steps) / max_steps
    return min(
        range(2, max_steps) if max_steps > 2 else range(1, max_steps + 1),
        key=lambda step: abs(batches.count_tokens(step) - batches.count_tokens(step - 1) - mean),
    )


def _time_step(pack: Pack, num_trials: int, step: int, num_tries: int) -> tuple[float, float]:
    """Seconds of a step of the first so many slots, and what capturing one of its graphs adds.

    The pass before it prepares it. The last try counts: an earlier one compiles its kernels and
    captures its graphs.
    """
    seconds, num_captured = [], []
    for _ in range(num_tries):
        for slot in range(num_trials):
            pack.seek(slot, max(0, step - 2))
        if step > 1:
            pack.step()
        num_before = pack.num_captured
        seconds.append(_time(pack.step))  # reads its losses, so it waits for the GPU
        num_captured.append(pack.num_captured - num_before)
    return seconds[-1], max(0.0, seconds[0] - seconds[-1]) / max(1, num_captured[0])


def _time_evaluation(loaded: LoadedPack, num_tries: int) -> tuple[float, float, int]:
    """Seconds of a batch, seconds of one more row of one trial, and the rows that a batch holds.

    Answers are counted as long as targets are: an untuned base talks on, trained adapters do not.
    They are timed with 1 and with EVAL_TOKENS tokens, and continued in a straight line.
    """
    settings, capacity = loaded.settings, loaded.capacity
    rows = loaded.select_report_rows(settings.rungs[0])
    evaluator = loaded.make_evaluator(rows[:EVAL_ROWS])
    num_tokens = min(settings.max_new_tokens, evaluator.target_tokens)
    lengths = sorted({1, min(num_tokens, EVAL_TOKENS)})
    fitting = EVAL_POSITIONS // (capacity.num_slots * evaluator.row_tokens)
    rows = rows[: max(1, min(EVAL_ROWS, fitting))]

    def time_answers(num_trials: int, rows: Sequence[Row]) -> float:
        seconds = []
        for length in lengths:
            timed = loaded.make_evaluator(rows, replace(settings, max_new_tokens=length))
            for _ in range(num_tries):
                last_s = _time(partial(timed.evaluate, loaded.pack.model, range(num_trials)))
            seconds.append(last_s)
        token_s = max(0.0, seconds[-1] - seconds[0]) / max(1, lengths[-1] - 1)
        return seconds[0] + token_s * (num_tokens - 1)

    few_rows = rows[: max(1, len(rows) // 4)]
    many_s = time_answers(capacity.num_slots, rows)
    few_s = time_answers(1, few_rows)
    more_rows = capacity.num_slots * len(rows) - len(few_rows)
    row_s = max(0.0, many_s - few_s) / max(1, more_rows)
    batch_rows = max(1, capacity.eval_tokens // evaluator.row_positions)
    return max(0.0, few_s - row_s * len(few_rows)), row_s, batch_rows


def _time(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
