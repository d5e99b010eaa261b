"""The benchmark of augmentation compares fairly, and says which side is better by how much."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.augmentation import compare_sides, divide_rows, main, make_config, read_flags
from trainables.data.stratified import make_near_key


def test_scored_texts_are_never_trained_on() -> None:
    config = make_config(read_flags(["--eval-rows", "200"]))
    splits, pool = divide_rows(config, 200)
    scored = {make_near_key(row.prompt) for row in splits.validation}
    assert len(splits.validation) == 200 < len(pool)
    assert scored.isdisjoint(make_near_key(row.prompt) for row in pool)


def test_gain_has_the_sign_of_the_side_with_copies() -> None:
    better, worse = (100.0,) * 30 + (0.0,) * 10, (100.0,) * 20 + (0.0,) * 20
    won, lost = compare_sides([better] * 3, [worse] * 3), compare_sides([worse] * 3, [better] * 3)
    assert won["gain"] == 25.0 and lost["gain"] == -25.0
    assert won["probability_better"] == 1.0 and lost["probability_better"] == 0.0
    low, high = won["interval"]  # type: ignore[misc]
    assert 0 < low < 25 < high and lost["interval"] == [-high, -low]


@pytest.mark.slow
def test_all_seeds_of_both_sides_are_trained_and_told(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    sizes = ["--sizes", "12", "--eval-rows", "10", "--seeds", "2", "--max-steps", "2"]
    main([*sizes, "--copies", "2", "3", "--output", str(output)])
    facts = json.loads(output.read_text())
    assert [(one["rows"], one["copies"]) for one in facts["results"]] == [(12, 2), (12, 3)]
    for one in facts["results"]:
        assert len(one["plain"]) == len(one["with_copies"]) == len(one["rows_with_copies"]) == 2
        assert 12 < min(one["rows_with_copies"]) <= 12 * (1 + one["copies"])
    assert facts["results"][0]["plain"] == facts["results"][1]["plain"]
