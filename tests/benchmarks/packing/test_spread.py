"""The spread of solo runs tells rounding from differences."""

from pathlib import Path

import pytest

from tests.benchmarks.packing import spread
from trainables.tiny import MODEL_DIR, SAMSUM_DIR


@pytest.mark.slow
def test_in_float32_all_runs_lie_within_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only a GPU's memory needs a process for each run.
    monkeypatch.setattr(spread, "run_in_own_process", lambda measure, *args: measure(*args))
    args = spread.Args(
        model=MODEL_DIR,
        data=SAMSUM_DIR,
        out=tmp_path / "out.json",
        num_steps=3,
        batch_size=4,
        max_length_tokens=384,
        compute_dtype="float32",
    )
    comparison = spread.compare_losses(args, tmp_path)
    distances = comparison["distances"]
    assert list(distances) == ["solo, again", "solo, half", "solo, quarter", "pack of 4"]
    assert max(distances.values()) < 1e-5
    assert all(len(set(losses)) == 3 for losses in comparison["losses"].values())
