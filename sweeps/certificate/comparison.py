"""A trial beside its re-trainings: how far they lie apart, and whether that counts as equal."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy import stats  # type: ignore[import-untyped]

from sweeps.config import Engine
from trainables.compare_engines import AdapterDistance
from trainables.config import ComputeDtype, Hyperparameters, TrialReport

Place = tuple[int, str]
"""A step at which the trial reported, and the name of a number: a loss, or the metric."""

LOSSES = ("train_loss", "eval_loss")
LOSS_LIMITS: dict[ComputeDtype, float] = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest relative difference of two trainings with the same masks; what they round differently
stays far below it in float32 (1e-5 over 50 steps, tests/trainables/packing/test_pack.py)."""
METRIC_LIMITS: dict[ComputeDtype, float] = {"float32": 1.0, "bfloat16": 3.0}
"""Largest difference of the metric (0 to 100), if it is more than one row can make: where two
tokens are nearly as likely, rounding decides how an answer goes on."""
NUM_DEVIATIONS = 4.0
"""How far from the mean of many seeds a training may lie, in their standard deviations; from that
of a few, whose deviation is itself uncertain, as much further as Student's t has it."""
SEEDS_FLOOR = 0.02
"""Relative distance from the mean of the seeds that always counts as within them."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """One training of the trial, done for the certificate."""

    engine: Engine
    seed: int | None = None
    """Seed of its dropout; None for the trial's own."""
    reports: list[TrialReport] = field(default_factory=list)
    adapter: AdapterDistance | None = None
    """From the trial's own adapter; None if that was not compared."""
    failed: str = ""
    """Why it could not be done, or empty."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        what = "pack of one" if self.engine == "packed" else "solo"
        return what if self.seed is None else f"{what}, dropout seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a sweep recorded of a trial, and the same trial trained again."""

    trial_id: str
    engine: Engine
    """That of the sweep."""
    params: Hyperparameters
    compute_dtype: ComputeDtype
    metric: str
    eval_rows: int
    recorded: list[TrialReport]
    again: Retraining
    """By the other engine; the pack of one, which has the pack's masks, if there is dropout."""
    seeds: tuple[Retraining, ...] = ()
    """Solo with other seeds of dropout; none without dropout."""

    @property
    def is_same_masks(self) -> bool:
        """Whether again must give the recorded numbers, and not only numbers like them."""
        return self.engine == "packed" or not self.params.lora_dropout

    @property
    def failures(self) -> list[str]:
        """What became of the trainings that could not be done."""
        trainings = (self.again, *self.seeds)
        return [f"{t.title} failed: {t.failed}" for t in trainings if t.failed]

    @property
    def packed(self) -> dict[Place, float]:
        """The numbers of the trial in a pack."""
        reports = self.recorded if self.engine == "packed" else self.again.reports
        return self.numbers(reports)

    @property
    def alone(self) -> list[dict[Place, float]]:
        """The numbers of the solo trainings that differ in their dropout's seed."""
        own = [self.recorded] if self.engine == "solo" else []
        return [self.numbers(reports) for reports in (*own, *(s.reports for s in self.seeds))]

    def numbers(self, reports: Sequence[TrialReport]) -> dict[Place, float]:
        """What is compared of some reports, by step and name."""
        return {
            (report.step, name): value
            for report in reports
            for name, value in (
                ("train_loss", report.train_loss),
                ("eval_loss", report.metrics["eval_loss"]),
                (self.metric, report.metrics[self.metric]),
            )
        }

    def gaps(self) -> dict[Place, float]:
        """Again against recorded: relative for losses, in points for the metric."""
        again = self.numbers(self.again.reports)
        return {
            place: _gap(place, value, again.get(place, math.nan))
            for place, value in self.numbers(self.recorded).items()
        }

    def largest(self, names: Sequence[str]) -> float:
        """The largest gap of numbers with these names; NaN counts as the largest."""
        gaps = [gap for (_, name), gap in self.gaps().items() if name in names]
        return max(gaps, key=lambda gap: (math.isnan(gap), gap))

    def spreads(self) -> dict[Place, tuple[float, float]]:
        """Mean and standard deviation over the seeds; empty without dropout or after a failure."""
        if not self.seeds or self.failures:
            return {}
        columns = {place: [run[place] for run in self.alone] for place in self.packed}
        return {p: (statistics.mean(c), statistics.stdev(c)) for p, c in columns.items()}


def faults(certificate: Certificate) -> list[str]:
    """Why the trial is not what it gives alone; empty if it is."""
    if certificate.failures:
        return certificate.failures
    same = _gap_faults(certificate) if certificate.is_same_masks else []
    return same + _seed_faults(certificate)


def _gap_faults(certificate: Certificate) -> list[str]:
    title = certificate.again.title
    return [
        f"{name} at step {step} differs by {gap:.2g} from the {title}, limit {limit:.2g}"
        for (step, name), gap in certificate.gaps().items()
        if not gap <= (limit := gap_limit(certificate, name))
    ]


def gap_limit(certificate: Certificate, name: str) -> float:
    """Largest gap that counts as none; in bfloat16 one within the spread of the seeds does too."""
    dtype = certificate.compute_dtype
    if name in LOSSES:
        is_rounded = dtype == "bfloat16"
        return max(LOSS_LIMITS[dtype], is_rounded * NUM_DEVIATIONS * _loss_deviation(certificate))
    return max(METRIC_LIMITS[dtype], 100.0 / certificate.eval_rows)


def _seed_faults(certificate: Certificate) -> list[str]:
    found = []
    for (step, name), (mean, deviation) in certificate.spreads().items():
        value = certificate.packed[step, name]
        if not _gap((step, name), mean, value) <= _seeds_limit(certificate, name, deviation):
            found.append(
                f"{name} at step {step} is {value:.6g} in the pack, away from the "
                f"{len(certificate.alone)} seeds' {mean:.6g} +- {deviation:.2g}"
            )
    return found


def _seeds_limit(certificate: Certificate, name: str, deviation: float) -> float:
    if name in LOSSES:
        return max(SEEDS_FLOOR, _num_deviations(certificate) * _loss_deviation(certificate))
    return max(gap_limit(certificate, name), NUM_DEVIATIONS * deviation)


def _num_deviations(certificate: Certificate) -> float:
    """Half the prediction interval of one more training, in pooled standard deviations, at the
    level that NUM_DEVIATIONS has of a normal distribution."""
    num_seeds, num_places = len(certificate.alone), len(_loss_spreads(certificate))
    freedom = max(1, (num_seeds - 1) * num_places)
    quantile = float(stats.t.isf(stats.norm.sf(NUM_DEVIATIONS), freedom))
    return quantile * math.sqrt(1 + 1 / num_seeds)


def _loss_deviation(certificate: Certificate) -> float:
    """Relative standard deviation of the losses over the seeds, pooled over the rungs.

    A few seeds tell little at one rung; over all of them they tell more.
    """
    squares = [(deviation / mean) ** 2 for mean, deviation in _loss_spreads(certificate)]
    return math.sqrt(statistics.mean(squares)) if squares else 0.0


def _loss_spreads(certificate: Certificate) -> list[tuple[float, float]]:
    """Those of losses that dropout's seed moves: the first step's loss may come before any."""
    spreads = [s for (_, name), s in certificate.spreads().items() if name in LOSSES]
    return [(mean, deviation) for mean, deviation in spreads if mean and deviation]


def _gap(place: Place, one: float, other: float) -> float:
    gap = abs(other - one)
    is_loss = place[1] in LOSSES
    return gap / abs(one) if is_loss and gap else gap
