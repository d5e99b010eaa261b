"""A certificate says equal exactly when the numbers lie within its limits."""

import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from sweeps.certificate.comparison import Certificate, Retraining, faults
from sweeps.certificate.text import describe, verdict
from trainables.config import Hyperparameters, TrialReport

PARAMS = Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=1e-3)
DROPPING = dataclasses.replace(PARAMS, lora_dropout=0.1)


def report(step: int = 3, train: float = 2.0, loss: float = 4.0, score: float = 30.0) -> Any:
    return TrialReport(
        trial_id="t0000", step=step, metrics={"eval_loss": loss, "rougeLsum": score},
        train_loss=train, learning_rate=1e-3, epoch=0.1, tokens=1, tokens_per_s=1.0,
        seconds=1.0, peak_gib=1.0, checkpoint=Path("/none"),
    )  # fmt: skip


def certificate(again: list[TrialReport] | Retraining, **changes: Any) -> Certificate:
    if isinstance(again, list):
        again = Retraining(engine="solo", reports=again)
    default: dict[str, Any] = {
        "trial_id": "t0000", "engine": "packed", "params": PARAMS, "compute_dtype": "float32",
        "metric": "rougeLsum", "eval_rows": 200, "recorded": [report(1), report(3)],
        "again": again,
    }  # fmt: skip
    return Certificate(**(default | changes))


def seeds(*losses: float) -> tuple[Retraining, ...]:
    return tuple(
        Retraining(engine="solo", seed=seed, reports=[report(train=2.0, loss=loss)])
        for seed, loss in enumerate(losses, start=1)
    )


def dropping(
    loss: float, *others: float, again: Retraining | None = None, **changes: Any
) -> Certificate:
    """A trial with dropout that ended with this loss; a pack of one gives the same."""
    recorded = [report(loss=loss)]
    again = again or Retraining(engine="packed", reports=recorded)
    changes |= {"params": DROPPING, "recorded": recorded, "seeds": seeds(*others)}
    return certificate(again, **changes)


@pytest.mark.parametrize(
    ("dtype", "gap", "is_equal"),
    [("float32", 9e-5, True), ("float32", 1.1e-4, False),
     ("bfloat16", 0.019, True), ("bfloat16", 0.021, False)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["train", "loss"])
def test_losses_may_differ_by_what_rounding_explains(
    name: str, dtype: str, gap: float, is_equal: bool
) -> None:
    value = {"train": 2.0, "loss": 4.0}[name] * (1 + gap)
    found = faults(certificate([report(1), report(3, **{name: value})], compute_dtype=dtype))
    assert (found == []) == is_equal
    assert all("step 3" in fault and "limit" in fault for fault in found)


@pytest.mark.parametrize(
    ("eval_rows", "score", "is_equal"), [(200, 30.9, True), (200, 31.1, False), (8, 42.0, True)]
)
def test_metric_may_differ_by_one_row(eval_rows: int, score: float, is_equal: bool) -> None:
    again = [report(1), report(3, score=score)]
    assert (faults(certificate(again, eval_rows=eval_rows)) == []) == is_equal


@pytest.mark.parametrize("again", [[report(1)], [report(1), report(3, loss=math.nan)]])
def test_missing_and_non_finite_numbers_are_not_equal(again: list[TrialReport]) -> None:
    found = certificate(again)
    assert faults(found)
    assert math.isnan(found.largest(("eval_loss",)))
    assert verdict(found).startswith("NOT equal: ")


def test_training_that_failed_is_the_verdict() -> None:
    again = Retraining(engine="solo", failed="non-finite loss at step 2")
    found = certificate(again, params=DROPPING, seeds=seeds(4.0, 4.1))
    assert verdict(found) == "NOT equal: solo failed: non-finite loss at step 2"
    assert "nan" in describe(found)


@pytest.mark.parametrize(
    ("loss", "is_equal"), [(4.0, True), (4.8, True), (3.2, True), (5.3, False), (2.7, False)]
)
def test_pack_with_dropout_lies_among_the_seeds(loss: float, is_equal: bool) -> None:
    found = dropping(loss, *[3.8, 4.2] * 8)
    assert found.spreads()[3, "eval_loss"] == pytest.approx((4.0, 0.2066), rel=1e-3)
    assert (faults(found) == []) == is_equal
    assert ("within the spread of 16 seeds" in verdict(found)) == is_equal


def test_few_seeds_say_little_about_their_spread() -> None:
    """Two that are near by chance do not tell a third training from themselves."""
    apart = 4.0 + 5.5 * statistics.stdev([3.9, 4.1] * 8)
    assert faults(dropping(apart, 3.9, 4.1)) == [] != faults(dropping(apart, *[3.9, 4.1] * 32))


@pytest.mark.parametrize(("loss", "is_equal"), [(4.07, True), (4.09, False)])
def test_two_percent_from_seeds_that_hardly_differ_is_near(loss: float, is_equal: bool) -> None:
    assert (faults(dropping(loss, 4.0, 4.0, 4.001)) == []) == is_equal


def test_pack_of_one_must_give_the_same_even_where_seeds_differ_much() -> None:
    again = Retraining(engine="packed", reports=[report(loss=4.01)])
    (fault,) = faults(dropping(4.0, 3.0, 5.0, again=again))
    assert "differs by 0.0025 from the pack of one" in fault


def test_in_bfloat16_the_spread_of_the_seeds_is_room_for_rounding() -> None:
    again = Retraining(engine="packed", reports=[report(loss=4.2)])
    wide = dropping(4.0, 3.8, 4.0, 4.2, again=again, compute_dtype="bfloat16")
    narrow = dropping(4.0, 3.99, 4.0, 4.01, again=again, compute_dtype="bfloat16")
    assert faults(wide) == [] and faults(narrow) != []


def test_solo_run_with_dropout_counts_as_one_of_the_seeds() -> None:
    again = Retraining(engine="packed", reports=[report(loss=4.05)])
    found = dropping(4.0, 3.8, 4.2, again=again, engine="solo")
    assert found.packed[3, "eval_loss"] == 4.05
    assert found.spreads()[3, "eval_loss"] == pytest.approx((4.0, 0.2))
    assert verdict(found) == "equal within the spread of 3 seeds of dropout"


def test_text_shows_every_number_and_where_the_pack_lies() -> None:
    text = describe(dropping(4.1, 3.8, 4.0, 4.2))
    assert "+0.5 deviations" in text
    assert "packed, recorded" in text and "pack of one" in text
    assert "weights: not compared" in text
    assert text.splitlines()[-1].startswith("equal within 0.0e+00")


def test_only_the_first_faults_are_told() -> None:
    recorded = [report(step) for step in range(1, 9)]
    again = [report(step, loss=5.0) for step in range(1, 9)]
    text = verdict(certificate(again, recorded=recorded))
    assert text.count("eval_loss at step") == 5 and text.endswith("; and 3 more")
