"""What a sweep will take: measured throughput times the steps and rows that ASHA leaves to do.

A closed form, told before the first trial. No torch, no Ray.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.config import SweepConfig
from sweeps.cost.allocation import Allocation, find_largest_point
from sweeps.finals.finalists import count_final_runs
from trainables.config import Hyperparameters
from trainables.models.model_facts import ModelFacts
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
ROUND_S = 0.4
"""What a round of reports takes beside its evaluation: answers are made text and scored (0.09 to
0.22 s by the ledgers of three sweeps), adapters saved, trials told, and the freed slots filled."""
CLOSING_S = 2.5
"""Verdict, tables, W&B's last words and the best adapter."""
STEPS_PER_CAPTURE, MOST_CAPTURES = 4.0, 150.0
"""CUDA graphs that a pack captures: 39 in its first 56 steps of SAMSum rows, 162 in 560."""
BAND = (0.75, 1.0, 1.35)
"""Factors of what is still to come, low, expected and high: ASHA's luck and a measurement of a few
steps. Search steps of ten equal sweeps were 0.8 to 1.4 times their mean."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take; its fields are those of a "predicted" event."""

    wall_s: float
    wall_low_s: float
    """With wall_high_s, the band that wall_s is expected in."""
    wall_high_s: float
    finals_s: float
    """The part of wall_s after the search: finals, test and closing."""
    gpu_hours: float
    """All GPUs for all of wall_s."""
    memory_gib: float
    """Predicted peak of the fullest GPU; 0 without one."""
    throughput: Throughput

    def describe(self) -> list[str]:
        """The estimate in words, a line each, before the first trial."""
        measured = self.throughput
        slots = measured.num_slots
        lines = [
            f"estimate: about {self._wall}, {self.gpu_hours:.2g} GPU-hours; "
            f"{format_duration(self.finals_s)} of it after the search",
            f"throughput: a step takes {_format_short(measured.predict_step_s(1))} with 1 trial, "
            f"{_format_short(measured.predict_step_s(slots))} with {slots}; scoring 100 rows of "
            f"{slots} trials takes {_format_short(measured.predict_eval_s(slots, 100))} (loaded in "
            f"{format_duration(measured.load_s)}, measured in {_format_short(measured.probe_s)})",
        ]
        if self.memory_gib:
            lines.append(f"memory: {self.memory_gib:.1f} GiB a GPU at most, {slots} slots")
        return lines

    def compare(self, actual: dict[str, Any]) -> str:
        """What was predicted beside what came true, for the end."""
        line = (
            f"time: {format_duration(actual['wall_s'])}, predicted {self._wall}, "
            f"{actual['wall_s'] / self.wall_s - 1:+.0%}; "
            f"{actual['gpu_hours']:.2g} GPU-hours, predicted {self.gpu_hours:.2g}"
        )
        if self.memory_gib and math.isfinite(actual["memory_gib"]):
            planned = f"{self.memory_gib:.1f} planned at most"
            line += f"; peak {actual['memory_gib']:.1f} GiB of {planned}"
        return line

    @property
    def _wall(self) -> str:
        """E.g. 12 min (9 min to 16 min)."""
        low, high = format_duration(self.wall_low_s), format_duration(self.wall_high_s)
        return f"{format_duration(self.wall_s)} ({low} to {high})"


class CostModel:
    """What a sweep has to do and where, and how long its parts take at a measured throughput."""

    def __init__(
        self, config: SweepConfig, allocation: Allocation, num_validation: int, num_test: int
    ) -> None:
        self.config = config
        self.allocation = allocation
        self.num_packs = allocation.num_packs or allocation.concurrency
        """Packs that work at once; of solo trials, how many run at once."""
        self.num_gpus = max(1, allocation.num_gpus)
        """GPUs that are held; a machine without one counts as one."""
        self.eval_rows = config.count_scored_rows(num_validation)
        """Validation rows that a report scores, by rung."""
        self.num_test = num_test
        self._promoted_frac = min(1.0, PROMOTED / config.reduction_factor)
        """Share of the trials at a rung that ASHA is expected to let go on."""

    def predict_steps(self, step: int) -> float:
        """Steps that a trial which stands at a step is expected to make before ASHA stops it."""
        gaps = pairwise([step, *(rung for rung in self.config.rungs if rung > step)])
        return sum((high - low) * self._promoted_frac**n for n, (low, high) in enumerate(gaps))

    def estimate(
        self,
        throughput: Throughput,
        *,
        elapsed_s: float = 0.0,
        head_start_s: float = 0.0,
        search_left: float = 1.0,
        finals_left: float = 1.0,
        limit_s: float = math.inf,
    ) -> Estimate:
        """The whole sweep.

        Args:
            elapsed_s: what has passed already, which wall_s includes.
            head_start_s: for how long the first trials' processes have been starting.
            search_left: share of the search's steps that an earlier process has not made.
            finals_left: likewise of the finals.
            limit_s: when a budget ends the sweep.
        """
        start_s = max(0.0, self.predict_start_s(self.allocation.concurrency) - head_start_s)
        finals_s = finals_left * self.predict_finals_s(throughput, count_final_runs(self.config))
        finals_s += self.predict_test_s(throughput)
        left_s = search_left * self.predict_search_s(throughput) + start_s * (search_left > 0)
        left_s += finals_s
        low_s, wall_s, high_s = (min(limit_s, elapsed_s + share * left_s) for share in BAND)
        return Estimate(
            wall_s=wall_s,
            wall_low_s=low_s,
            wall_high_s=high_s,
            finals_s=finals_s,
            gpu_hours=wall_s * self.num_gpus / 3600,
            memory_gib=max((c.predicted_gib for c in self.allocation.capacities), default=0.0),
            throughput=throughput,
        )

    def predict_search_s(self, throughput: Throughput) -> float:
        """Seconds of the search, once its first trials are in their slots.

        Whoever begins last may train to the end, with ever fewer beside it: a pack makes max_steps
        steps beyond those in which its slots are full.
        """
        num_trials, rungs = self.config.num_trials, self.config.rungs
        concurrency = self.allocation.concurrency
        num_live = concurrency / self.num_packs
        fracs = [self._promoted_frac**rung for rung in range(len(rungs))]
        reaching = [max(1.0, num_trials * frac) / self.num_packs for frac in fracs]
        gaps = [high - low for low, high in pairwise((0, *rungs))]
        trial_steps = sum(number * gap for number, gap in zip(reaching, gaps, strict=True))
        pack_steps = (1 - concurrency / num_trials) * trial_steps / num_live + rungs[-1]
        num_captures = min(MOST_CAPTURES, pack_steps / STEPS_PER_CAPTURE)
        seconds = pack_steps * throughput.step_fixed_s + trial_steps * throughput.step_trial_s
        seconds += num_captures * throughput.capture_s
        for number, frac, rows in zip(reaching, fracs, self.eval_rows, strict=True):
            cohort = max(1.0, min(number, num_live * frac))
            seconds += number / cohort * (ROUND_S + throughput.predict_eval_s(cohort, rows))
        return seconds

    def predict_finals_s(self, throughput: Throughput, num_final_runs: int) -> float:
        """Seconds of the finals' runs: a full training a wave."""
        if num_final_runs == 0:
            return 0.0
        at_once = min(num_final_runs, self.allocation.final_concurrency)
        num_live = math.ceil(at_once / self.num_packs)
        begins = (0, *self.config.rungs[:-1])
        wave_s = sum(self.predict_segment_s(throughput, step, num_live) for step in begins)
        return self.predict_start_s(at_once) + math.ceil(num_final_runs / at_once) * wave_s

    def predict_test_s(self, throughput: Throughput) -> float:
        """Seconds of the test, of which each pack has its share, and of what closes a sweep."""
        num_tested = self.config.num_final_seeds + 1 if self.config.finals else 1
        num_scored = math.ceil((1 + num_tested) / self.num_packs)
        base_s = throughput.predict_eval_s(1, self.eval_rows[-1])  # the untuned base on validation
        return CLOSING_S + base_s + throughput.predict_eval_s(num_scored, self.num_test)

    def predict_start_s(self, num_trials: int) -> float:
        """Seconds from the proposal of so many trials until they are in their slots."""
        return START_S + PROCESS_S * num_trials / self.allocation.num_cpus

    def predict_segment_s(self, throughput: Throughput, step: int, num_live: int) -> float:
        """Seconds from a rung (or 0) to the next report, of a trial in a pack of so many."""
        for rung, rows in zip(self.config.rungs, self.eval_rows, strict=True):
            if rung > step:
                train_s = (rung - step) * throughput.predict_step_s(num_live)
                return train_s + ROUND_S + throughput.predict_eval_s(num_live, rows)
        return 0.0


def make_probe_params(config: SweepConfig, model: ModelFacts) -> list[Hyperparameters]:
    """What the throughput is measured with: ranks and dropouts as the space has them, in turn, on
    the largest set of linear layers."""
    space, largest = config.space, find_largest_point(config, model)
    pairs = product(space.lora_dropouts, space.lora_ranks) if config.estimate else ()
    return [
        replace(largest, lora_rank=rank, lora_alpha=float(rank), lora_dropout=dropout)
        for dropout, rank in pairs
    ]


def _format_short(seconds: float) -> str:
    """E.g. 35 ms or 1.4 s."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
