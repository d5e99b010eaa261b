"""How many digits a score has follows its metric's scale."""

import math

import pytest

from trainables.metrics.registry import find_scale, format_score


@pytest.mark.parametrize(
    ("name", "value", "beside", "shown"),
    [
        ("rougeLsum", 70.512, (), "70.51"),
        ("chrf", 0.5, (), "0.50"),
        ("f1_good", 1.0, (), "1.00"),
        ("mcc", 0.12345, (), "0.1235"),
        ("eval_loss", 1.23456, (), "1.235"),
        ("mine", 0.91234, (), "0.9123"),
        ("mine", 0.0012, (0.91, 0.92), "0.0012"),
        ("mine", 91.234, (), "91.23"),
        ("mine", 0.0, (), "0.0000"),
        ("mine", 1.0, (), "1.0000"),
        ("mine", 123456.7, (), "123457"),
        ("mine", 1.5e30, (), "1.5e+30"),
        ("mine", 1.5e-12, (), "1.5e-12"),
        ("mine", math.nan, (0.5, math.inf), "nan"),
        ("mine", None, (0.5,), ""),
    ],
)
def test_digits_follow_the_scale(
    name: str, value: float | None, beside: tuple[float, ...], shown: str
) -> None:
    assert format_score(name, value, beside) == shown


def test_scale_of_a_metric_of_the_users_is_the_power_of_ten_that_holds_its_scores() -> None:
    assert find_scale("mine", (0.2, 0.7)) == find_scale("mine", (1.0,)) == 1.0
    assert find_scale("mine", (0.03,)) == pytest.approx(0.1)
    assert find_scale("mine", (math.nan, None)) == 1.0
