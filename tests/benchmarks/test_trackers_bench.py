"""The benchmark of trackers compares sweeps by their medians, and doubts few of them."""

import pytest

from sweeps.cli import run_command
from tests.benchmarks.trackers import compare_medians, main


def test_ratio_says_how_many_times_as_long_the_sweeps_with_trackers_are() -> None:
    comparison = compare_medians([10.0, 9.0, 30.0], [10.3, 9.5, 29.0])
    assert comparison == {"ratio": 1.03, "interval": [0.9667, 1.0556]}
    apart = compare_medians([10.0] * 3, [11.0] * 3)
    assert apart == {"ratio": 1.1, "interval": [1.1, 1.1]}


@pytest.mark.parametrize("num_pairs", ["0", "-1"])
def test_no_pairs_are_refused(num_pairs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: main(["--num-pairs", num_pairs]))
    assert "at least 1" in capsys.readouterr().err
