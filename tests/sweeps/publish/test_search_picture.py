"""The card's picture of the search is a PNG that is drawn here, whatever names and scores are."""

import math
from dataclasses import replace

from sweeps.publish.model_card import render
from sweeps.publish.search_picture import PICTURE_FILE, SHARPNESS, SIZE, draw_search
from tests.sweeps.example_facts import METRIC, OUTCOME, TRIALS, facts
from tests.sweeps.invented_sweep import make_history

PNG = b"\x89PNG\r\n\x1a\n"


def test_picture_is_a_small_png_and_the_card_shows_it() -> None:
    picture = draw_search(facts())
    assert picture is not None and picture.startswith(PNG) and len(picture) < 200_000
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
    assert width >= SHARPNESS * SIZE["width"] and height >= SHARPNESS * SIZE["height"]
    link = f"![Scores of the trials from rung to rung by {METRIC.name}]({PICTURE_FILE})"
    assert link in render(facts(), has_picture=True)
    assert PICTURE_FILE not in render(facts())


def test_chosen_trial_and_base_change_the_picture() -> None:
    other = replace(OUTCOME, winner=replace(OUTCOME.winner, run=TRIALS[1]))
    no_base = replace(OUTCOME, scores={"validation": OUTCOME.scores["validation"]})
    pictures = {draw_search(facts(outcome=outcome)) for outcome in (OUTCOME, other, no_base)}
    assert len(pictures) == 3 and None not in pictures


def test_any_name_and_score_can_be_drawn() -> None:
    name = "f1_<b>'\"; datum.x \\\\ " + "long " * 40
    trials = [make_history(n, "completed", (30, 1.0), (90, v)) for n, v in ((1, 1e300), (2, 0.0))]
    renamed = [
        replace(t, reports=[replace(r, metrics={name: r.metrics["rougeLsum"]}) for r in t.reports])
        for t in trials
    ]
    given = facts(metric=replace(METRIC, name=name), trials=renamed)
    picture = draw_search(given)
    assert picture is not None and picture.startswith(PNG)


def test_search_without_a_finite_score_has_no_picture() -> None:
    assert draw_search(facts(trials=[make_history(1, "failed", reason="out of memory")])) is None
    assert draw_search(facts(trials=[make_history(1, "stopped", (10, math.nan))])) is None
