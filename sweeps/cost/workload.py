"""What a sweep has to do, and how long its parts take: by the pace, and by what was measured once.

The constants are those of one H200 with 16 cores and three sweeps of an 18M-parameter model: 64
trials and 24 on SAMSum, 16 of turkish_tweets. No torch, no Ray.
"""

import math
from dataclasses import dataclass

from trainables.packing.sizing.pace import Speed

START_S = 1.8
"""From the first proposal until its trials are in their slots, beside what their processes take."""
PROCESS_S = 2.0
"""Seconds of a core that a trial's process takes to start: 6, 8 and 22 trials were in their slots
after 2.5, 2.8 and 4.5 s of 16 cores."""
REFILL_S = 0.4
"""From a round's decision until the first of the trials that follow is in its slot."""
PROPOSAL_S = 0.06
"""That each of them adds, since one is proposed after another."""
REPORT_S = 0.03
"""By which saving and telling one trial's report makes a round longer: it is saved while the round
is scored, which is then slower. By the packs' ledgers of four sweeps."""
EVALUATION_S = 0.15
"""Of every evaluation, what a few rows do not show: decoding that is recorded anew as rows finish,
and answers made text and scored. By the ledgers 0.09 to 0.22 s in three sweeps."""
VERDICT_S = 1.0
"""Between the last run of the finals and the final test: the bootstrap."""
CLOSING_S = 1.5
"""From the final test to the end: tables, W&B's last words, the best adapter."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a sweep has to do, and where."""

    num_trials: int
    rungs: tuple[int, ...]
    """Optimizer steps at which trials report."""
    eval_rows: tuple[int, ...]
    """Validation rows that a report scores, by rung."""
    reduction_factor: int
    num_packs: int
    """Packs that work at once; of solo trials, how many run at once."""
    num_gpus: float
    """GPUs that are held; a machine without one counts as one."""
    concurrency: int
    """Trials of the search that run at once, over all packs."""
    final_concurrency: int
    """Runs of the finals that run at once, over all packs."""
    num_cpus: int
    """Cores, on which trials' processes start."""
    num_final_runs: int
    num_tested: int
    """Adapters that are tested in the end, beside the untuned base."""
    test_rows: int
    num_testing: int = 1
    """Packs that share the final test."""


def test_s(load: Workload, speed: Speed) -> float:
    """Seconds of the verdict, of the test, and of what closes a sweep."""
    base_s = EVALUATION_S + speed.evaluation_s(1, load.eval_rows[-1])
    if load.num_testing == 1:
        tested_s = base_s + _tested_s(load, speed, 1 + load.num_tested)
    else:  # one has the base
        share = math.ceil(load.num_tested / (load.num_testing - 1))
        tested_s = max(base_s + _tested_s(load, speed, 1), _tested_s(load, speed, share))
    return VERDICT_S * (load.num_final_runs > 0) + tested_s + CLOSING_S


def _tested_s(load: Workload, speed: Speed, num_adapters: int) -> float:
    return EVALUATION_S + speed.evaluation_s(num_adapters, load.test_rows)


def start_s(load: Workload, num_trials: int) -> float:
    """Seconds from the proposal of so many trials until they are in their slots."""
    return START_S + PROCESS_S * num_trials / load.num_cpus


def report_s(speed: Speed, num_trials: int, num_rows: int) -> float:
    """Seconds in which so many trials are saved and scored at a rung."""
    return fixed_report_s(num_trials) + speed.evaluation_s(num_trials, num_rows)


def fixed_report_s(num_trials: int) -> float:
    """Of these, those that do not depend on the pace."""
    return REPORT_S * num_trials + EVALUATION_S


def segment_s(load: Workload, speed: Speed, step: int, num_live: int) -> float:
    """Seconds from a rung (or 0) to the next report, of a trial in a pack of so many; without what
    is recorded on the way."""
    rung, rows = next(
        (one for one in zip(load.rungs, load.eval_rows, strict=True) if one[0] > step),
        (step, 0),
    )
    return (rung - step) * speed.step_s(num_live) + report_s(speed, num_live, rows)
