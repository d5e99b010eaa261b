"""A proposal and a report cost the driver little, in Tune's loop and beside a locked study."""

from pathlib import Path

import pytest

from tests.benchmarks.scale import __main__ as scale


@pytest.mark.slow
def test_proposals_and_reports_of_a_hundred_trials_cost_milliseconds(tmp_path: Path) -> None:
    """CPU of the driver's thread alone, so other work on the machine fails nothing."""
    found = scale.measure_sweep(tmp_path, num_trials=100, num_packs=8, lock_s=2.0)
    assert found["proposals"]["number"] == 100 and found["reports"]["number"] > 100
    assert found["proposals"]["cpu_mean_ms"] < 30 and found["reports"]["cpu_mean_ms"] < 5
    assert found["loop"]["cpu_ms_a_report"] < 20
    assert sum(found["study_states"].values()) == 100 and "RUNNING" not in found["study_states"]
