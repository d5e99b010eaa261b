"""The benchmark of base types compares the same trainings, and says which base has more."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.benchmarks.base_types import LOSS, compare_runs, main
from trainables.data.rows import Scoring
from trainables.metrics.eval_result import SavedAnswers


def answer(*losses: float) -> SavedAnswers:
    """A run whose targets have two tokens each."""
    texts = ("",) * len(losses)
    rows = tuple((2 * loss, 2) for loss in losses)
    return SavedAnswers(ids=texts, targets=texts, answers=texts, row_scores={}, row_losses=rows)


def test_difference_is_how_much_more_it_is_over_nf4_by_pairs() -> None:
    plain = [
        answer(1.0, 5.0, 2.0),
        answer(2.0, 9.0, 4.0),
    ]  # seeds and rows differ by more
    nf4 = [answer(1.1, 5.2, 2.3), answer(2.1, 9.2, 4.3)]
    result = compare_runs(nf4, plain, LOSS, Scoring())
    low, high = result["interval"]
    assert 0.1 <= low < result["difference"] == 0.2 < high <= 0.3
    other = compare_runs(plain, nf4, LOSS, Scoring())
    assert other["interval"] == [-high, -low] and other["difference"] == -0.2


@pytest.mark.slow
def test_all_seeds_of_both_bases_are_told_at_each_rung(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    sizes = ["--seeds", "2", "--max-steps", "3", "--eval-rows", "4", "--lora-dropout", "0.1"]
    main([*sizes, "--recipe", "turkish_tweets", "--output", str(output)])
    (result,) = json.loads(output.read_text())["results"]
    shown = [(one["score"], one["step"]) for one in result["scores"]]
    assert shown == [(name, step) for name in ("eval_loss", "accuracy") for step in (0, 2, 3)]
    for one in result["scores"]:
        assert len(one["nf4"]) == len(one["bf16"]) == (2 if one["step"] else 1)
        difference = fmean(one["nf4"]) - fmean(one["bf16"])
        assert one["difference"] == pytest.approx(difference, abs=2e-4)
    losses = result["scores"][:3]
    assert all(one["nf4"] != one["bf16"] for one in losses)
    assert losses[2]["bf16"][0] != losses[2]["bf16"][1]
    assert len(capsys.readouterr().out.splitlines()) == 2 + 6
