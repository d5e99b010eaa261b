"""Refused command lines are told by flag, value and what is allowed, not in the parser's words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro

from sweeps.cli import parse
from trainables.config import require
from trainables.errors import SweepAborted


@dataclass(frozen=True, kw_only=True)
class Loaves:
    """Bakes."""

    oven: tyro.conf.Positional[Path]
    """Where, e.g. kitchen."""
    num_trays: int
    """Trays to bake; --oven-heat has to do with them."""
    oven_heat: float | None = None
    """Degrees."""
    grain: Literal["rye", "wheat"] = "rye"
    """What of."""
    sizes: tuple[int, ...] = (1,)
    """Sizes to try."""
    limits_s: tuple[float, float] = (1.0, 2.0)
    """Shortest and longest."""
    slots: int | Literal["auto"] = "auto"
    """Places."""
    names: tuple[str, ...] = ()
    """Whose."""

    def __post_init__(self) -> None:
        require(self.num_trays > 0, "num_trays", self.num_trays, "at least 1, as 'num_trays' is")
        is_short = self.limits_s[0] < self.limits_s[1]
        require(is_short, "limits_s", "wrong", f"below num_trays ({self.num_trays})")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--num-trays ten", "--num-trays is 'ten'; it must be a whole number"),
        ("--num-trays", "--num-trays lacks a value; it must be a whole number"),
        ("--num-trays 0", "--num-trays is 0; it must be at least 1, as 'num_trays' is"),
        ("--limits-s 2 1", "--limits-s is 'wrong'; it must be below --num-trays (1)"),
        ("--limits-s 2", "--limits-s lacks a value; it must be 2 values, each a number"),
        ("--oven-heat hot", "--oven-heat is 'hot'; it must be a number or None"),
        ("--oven-heat it's", '--oven-heat is "it\'s"; it must be a number or None'),
        ("--grain oat", "--grain is 'oat'; it must be rye or wheat"),
        ("--sizes 1 x", "--sizes is '1', 'x'; it must be one or more values, each a whole number"),
        ("--slots many", "--slots is 'many'; it must be a whole number or auto"),
    ],
)
def test_value_is_told_with_its_flag_and_what_is_allowed(words: str, error: str) -> None:
    with pytest.raises(SweepAborted) as refused:
        parse(Loaves, ["kitchen", "--num-trays", "1", *words.split()], "bake")
    assert refused.value.error == error
    assert refused.value.fix.startswith("bake --help")


def test_what_is_missing_is_listed_without_its_explanation() -> None:
    for argv, missing in (([], "PATH, --num-trays INT"), (["kitchen"], "--num-trays INT")):
        with pytest.raises(SweepAborted) as refused:
            parse(Loaves, argv, "bake")
        assert refused.value.error == f"missing: {missing}"


def test_help_has_no_empty_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Loaves, ["--help"], "bake")
    shown = capsys.readouterr().out
    assert "Whose. (default: none)" in shown and "(default: )" not in shown
