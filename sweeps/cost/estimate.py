"""What a sweep will take: measured throughput times the steps and rows that ASHA leaves to do.

A closed form, told before the first trial. No torch, no Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from typing import Any

from sweeps.config import SweepConfig
from sweeps.cost.allocation import Allocation
from sweeps.durations import format_duration
from sweeps.finals import finalists
from trainables.config import Hyperparameters
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput

PROMOTED = 1.4
"""ASHA lets more than 1 / reduction_factor of the trials go on: the first ones at a rung are
compared with few, and later proposals, which know the results, beat earlier ones. Of 64 trials on
SAMSum with a factor of 3, 31 and 38 reached the second rung, 15 and 21 the third, 5 and 11 the
last (tests/benchmarks/h200-qwen3-18m-sweeps.json, one H200)."""
START_S = 1.8
"""From a proposal until its trials are in their slots, beside what their processes take."""
PROCESS_S = 2.0
"""Seconds of a core that a trial's process takes to start: 22 trials were in their slots after
4.5 s of 16 cores."""
REFILL_S = 1.0
"""From a round's decision until the trials that follow are in the freed slots."""
REPORT_S = 0.03
"""By which saving and telling one trial's report makes a round longer."""
ROUND_S = 0.15
"""Of every evaluation, what a few rows do not show: answers made text and scored. By the ledgers
of three sweeps 0.09 to 0.22 s."""
CLOSING_S = 2.5
"""Verdict, tables, W&B's last words and the best adapter."""
STEPS_PER_CAPTURE, MOST_CAPTURES = 4.0, 150.0
"""CUDA graphs that a pack captures: 39 in its first 56 steps of SAMSum rows, 162 in 560."""
BAND = (0.75, 1.35)
"""Of what is still to come: how far ASHA's luck and the pace of a few steps take it to each side.
Search steps of ten equal sweeps were 0.8 to 1.4 times their mean."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take, with the band that it is expected in."""

    wall_s: float
    wall_low_s: float
    wall_high_s: float
    finals_s: float
    """Of wall_s, what comes after the search: finals, test and closing."""
    num_gpus: float
    num_completed: float
    """Trials of the search that reach the last rung."""
    memory_gib: float
    """Predicted peak of a GPU; 0 without one."""
    throughput: Throughput

    @property
    def gpu_hours(self) -> float:
        """All GPUs for all of wall_s."""
        return self.wall_s * self.num_gpus / 3600

    @property
    def band(self) -> str:
        """E.g. 9 min to 14 min."""
        return f"{format_duration(self.wall_low_s)} to {format_duration(self.wall_high_s)}"

    def within(self, most_s: float) -> "Estimate":
        """The estimate of a sweep that its budget ends after so many seconds at most."""
        return replace(
            self,
            wall_s=min(self.wall_s, most_s),
            wall_low_s=min(self.wall_low_s, most_s),
            wall_high_s=min(self.wall_high_s, most_s),
        )

    def fields(self) -> dict[str, Any]:
        """The fields of a "predicted" event, also in sweep.json."""
        return asdict(self) | {"gpu_hours": self.gpu_hours}

    def describe(self) -> list[str]:
        """The estimate in words, a line each, before the first trial."""
        pace = self.throughput
        lines = [
            f"estimate: about {format_duration(self.wall_s)} ({self.band}), "
            f"{self.gpu_hours:.2g} GPU-hours; {format_duration(self.finals_s)} of it after the "
            "search",
            f"throughput: a step takes {_format_short(pace.step_s(1))} with 1 trial, "
            f"{_format_short(pace.step_s(pace.num_slots))} with {pace.num_slots}; scoring 100 rows "
            f"of {pace.num_slots} trials takes "
            f"{_format_short(pace.evaluation_s(pace.num_slots, 100))} (loaded in "
            f"{format_duration(pace.load_s)}, measured in {_format_short(pace.probe_s)})",
        ]
        if self.memory_gib:
            lines.append(f"memory: {self.memory_gib:.1f} GiB a GPU at most, {pace.num_slots} slots")
        return lines

    def compare(self, actual: dict[str, Any]) -> str:
        """What was predicted beside what came true, for the end."""
        line = (
            f"time: {format_duration(actual['wall_s'])}, predicted {format_duration(self.wall_s)} "
            f"({self.band}), {actual['wall_s'] / self.wall_s - 1:+.0%}; "
            f"{actual['gpu_hours']:.2g} GPU-hours, predicted {self.gpu_hours:.2g}"
        )
        if self.memory_gib and math.isfinite(actual["memory_gib"]):
            line += (
                f"; peak {actual['memory_gib']:.1f} GiB of {self.memory_gib:.1f} planned at most"
            )
        return line


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """What a sweep has to do and where, and how long its parts take at a measured throughput."""

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
    memory_gib: float = 0.0
    """Predicted peak of a GPU."""

    @classmethod
    def of_sweep(
        cls, config: SweepConfig, allocation: Allocation, num_validation: int, num_test: int
    ) -> "CostModel":
        """What this sweep has to do."""
        last = min(config.eval_rows, num_validation)
        low = min(config.low_rung_eval_rows or last, last)
        num_runs = finalists.num_runs(config)
        capacity = allocation.capacity
        return cls(
            num_trials=config.num_trials,
            rungs=config.rungs,
            eval_rows=(low,) * (len(config.rungs) - 1) + (last,),
            reduction_factor=config.reduction_factor,
            num_packs=allocation.num_packs if capacity else allocation.concurrency,
            num_gpus=max(1, allocation.num_gpus),
            concurrency=allocation.concurrency,
            final_concurrency=allocation.final_concurrency,
            num_cpus=allocation.num_cpus,
            num_final_runs=num_runs,
            num_tested=config.num_final_seeds + 1 if num_runs else 1,
            test_rows=num_test,
            memory_gib=capacity.predicted_gib if capacity else 0.0,
        )

    @property
    def promoted_frac(self) -> float:
        """Share of the trials at a rung that ASHA is expected to let go on."""
        return min(1.0, PROMOTED / self.reduction_factor)

    def num_reaching(self) -> list[float]:
        """Trials that are expected to reach each rung; the best always goes on."""
        return [
            max(1.0, self.num_trials * self.promoted_frac**rung) for rung in range(len(self.rungs))
        ]

    def steps_from(self, step: int) -> float:
        """Steps that a trial which stands at a step is expected to make before ASHA stops it."""
        ahead = [step, *(rung for rung in self.rungs if rung > step)]
        return sum(
            (high - low) * self.promoted_frac**n for n, (low, high) in enumerate(pairwise(ahead))
        )

    def estimate(
        self,
        throughput: Throughput,
        *,
        elapsed_s: float = 0.0,
        head_start_s: float = 0.0,
        search_left: float = 1.0,
        finals_left: float = 1.0,
    ) -> Estimate:
        """The whole sweep.

        Args:
            elapsed_s: what has passed already, which wall_s includes.
            head_start_s: for how long the first trials' processes have been starting.
            search_left: share of the search's steps that an earlier process has not made.
            finals_left: likewise of the finals.
        """
        start_s = max(0.0, self.start_s(self.concurrency) - head_start_s)
        search_s = search_left * self.search_s(throughput) + start_s * (search_left > 0)
        finals_s = finals_left * self.finals_s(throughput, self.num_final_runs)
        finals_s += self.test_s(throughput)
        left_s = search_s + finals_s
        low, high = BAND
        return Estimate(
            wall_s=elapsed_s + left_s,
            wall_low_s=elapsed_s + low * left_s,
            wall_high_s=elapsed_s + high * left_s,
            finals_s=finals_s,
            num_gpus=self.num_gpus,
            num_completed=self.num_reaching()[-1],
            memory_gib=self.memory_gib,
            throughput=throughput,
        )

    def search_s(self, throughput: Throughput) -> float:
        """Seconds of the search, once its first trials are in their slots.

        Whoever begins last may train to the end, with ever fewer beside it: a pack makes max_steps
        steps beyond those in which its slots are full.
        """
        per_pack = [number / self.num_packs for number in self.num_reaching()]
        num_live = self.concurrency / self.num_packs
        num_waves = max(0.0, self.num_trials / self.concurrency - 1)
        gaps = [high - low for low, high in pairwise((0, *self.rungs))]
        trial_steps = sum(n * gap for n, gap in zip(per_pack, gaps, strict=True))
        before_last = 1 - self.concurrency / self.num_trials
        pack_steps = before_last * trial_steps / num_live + self.rungs[-1]
        seconds = pack_steps * throughput.step_fixed_s + trial_steps * throughput.step_trial_s
        num_captures = min(MOST_CAPTURES, pack_steps / STEPS_PER_CAPTURE)
        seconds += num_captures * throughput.capture_s + num_waves * REFILL_S
        for rung, (number, rows) in enumerate(zip(per_pack, self.eval_rows, strict=True)):
            cohort = max(1.0, min(number, num_live * self.promoted_frac**rung))
            seconds += number / cohort * report_s(throughput, cohort, rows)
        return seconds

    def finals_s(self, throughput: Throughput, num_runs: int) -> float:
        """Seconds of the finals' runs."""
        if num_runs == 0:
            return 0.0
        at_once = min(num_runs, self.final_concurrency)
        num_live = math.ceil(at_once / self.num_packs)
        wave_s = self.rungs[-1] * throughput.step_s(num_live)
        wave_s += sum(report_s(throughput, num_live, rows) for rows in self.eval_rows)
        num_waves = math.ceil(num_runs / at_once)
        return self.start_s(at_once) + num_waves * wave_s + (num_waves - 1) * REFILL_S

    def test_s(self, throughput: Throughput) -> float:
        """Seconds of the test and of what closes a sweep; of several packs one has the base."""
        base_s = ROUND_S + throughput.evaluation_s(1, self.eval_rows[-1])
        if self.num_packs == 1:
            return CLOSING_S + base_s + self._tested_s(throughput, 1 + self.num_tested)
        share = math.ceil(self.num_tested / (self.num_packs - 1))
        base_s += self._tested_s(throughput, 1)
        return CLOSING_S + max(base_s, self._tested_s(throughput, share))

    def _tested_s(self, throughput: Throughput, num_adapters: int) -> float:
        return ROUND_S + throughput.evaluation_s(num_adapters, self.test_rows)

    def start_s(self, num_trials: int) -> float:
        """Seconds from the proposal of so many trials until they are in their slots."""
        return START_S + PROCESS_S * num_trials / self.num_cpus

    def segment_s(self, throughput: Throughput, step: int, num_live: int) -> float:
        """Seconds from a rung (or 0) to the next report, of a trial in a pack of so many."""
        for rung, rows in zip(self.rungs, self.eval_rows, strict=True):
            if rung > step:
                train_s = (rung - step) * throughput.step_s(num_live)
                return train_s + report_s(throughput, num_live, rows)
        return 0.0


def report_s(throughput: Throughput, num_trials: float, num_rows: int) -> float:
    """Seconds in which so many trials are saved and scored at a rung."""
    return REPORT_S * num_trials + ROUND_S + throughput.evaluation_s(num_trials, num_rows)


def probe_params(config: SweepConfig) -> list[Hyperparameters]:
    """What the throughput is measured with: ranks and dropouts as the space has them, in turn."""
    if not config.estimate:
        return []
    space = config.space
    return [
        Hyperparameters(
            lora_rank=rank,
            lora_alpha=float(rank),
            lora_dropout=dropout,
            learning_rate=space.learning_rates[0],
        )
        for dropout, rank in product(space.lora_dropouts, space.lora_ranks)
    ]


def actual_fields(wall_s: float, num_gpus: float, ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """The fields of an estimate that can be measured, as they came true."""
    return {
        "wall_s": wall_s,
        "gpu_hours": wall_s * num_gpus / 3600,
        "memory_gib": max((ledger.peak_gib for ledger in ledgers), default=math.nan),
    }


def _format_short(seconds: float) -> str:
    """E.g. 35 ms or 1.4 s."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
