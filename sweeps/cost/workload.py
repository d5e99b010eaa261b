"""What a sweep has to do, and how long its parts take: by the pace, and by what was measured once.

The constants are those of one H200 with 16 cores and three sweeps of an 18M-parameter model: 64
trials and 24 on SAMSum, 16 of turkish_tweets. No torch, no Ray.
"""

from dataclasses import dataclass

from trainables.packing.pace import Speed

START_S = 1.8
"""From the first proposal until its trials are in their slots, beside what their processes take."""
PROCESS_S = 2.0
"""Seconds of a core that a trial's process takes to start: 6, 8 and 22 trials were in their slots
after 2.5, 2.8 and 4.5 s of 16 cores."""
PLACED_S = 0.5
"""From the packs' readiness until trials whose processes wait for it are in their slots: 22 trials
on an H200."""
REFILL_S = 0.4
"""From a round's decision until the first of the trials that follow is in its slot."""
PROPOSAL_S = 0.06
"""That each of them adds, since one is proposed after another."""
REPORT_S = 0.05
"""Saving and telling of one trial's report, by the packs' ledgers: 3.7 s of 68 and 6.4 s of 126."""
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
    has_opening: bool = False
    """Whether the first ones start while the packs load."""
    num_final_runs: int
    num_tested: int
    """Adapters that are tested in the end, beside the untuned base."""
    test_rows: int


def test_s(load: Workload, speed: Speed) -> float:
    """Seconds of the verdict, of the test, and of what closes a sweep."""
    base_s = EVALUATION_S + speed.evaluation_s(1, load.eval_rows[-1])
    tuned_s = EVALUATION_S + speed.evaluation_s(1 + load.num_tested, load.test_rows)
    return VERDICT_S * (load.num_final_runs > 0) + base_s + tuned_s + CLOSING_S


def start_s(load: Workload, num_trials: int) -> float:
    """Seconds from the packs' readiness until so many first trials are in their slots."""
    if load.has_opening:
        return PLACED_S
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
