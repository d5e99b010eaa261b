"""search.png, the card's picture of the search: how each trial's score went from rung to rung."""

import logging
import math
from typing import Any

from sweeps.publish.card_facts import CardFacts
from sweeps.publish.report.plots import draw, encode_name, encode_number, encode_score

_log = logging.getLogger(__name__)

PICTURE_FILE = "search.png"
SIZE = {"width": 520, "height": 260}
SHARPNESS = 2.0
"""Pixels of the file for one of the page."""
OTHERS, CHOSEN, BASE = "other trials", "this configuration", "untuned base"
COLOURS = {OTHERS: "#9aa3b2", CHOSEN: "#1d5fc4", BASE: "#b4530a"}
MAX_TITLE_CHARACTERS = 40


def draw_search(facts: CardFacts) -> bytes | None:
    """The picture as PNG, drawn without a browser or a network; None if no trial has a score, or
    where it cannot be drawn, for a picture is not worth an adapter."""
    points = _list_points(facts)
    if not points:
        return None
    import vl_convert  # starts an engine for JavaScript

    try:
        png: bytes = vl_convert.vegalite_to_png(
            _make_spec(facts, points), vl_version="6.4", scale=SHARPNESS, allowed_base_urls=[]
        )
    except ValueError as failed:
        _log.warning("the model card has no picture: %s", failed)
        return None
    return png


def _list_points(facts: CardFacts) -> list[dict[str, Any]]:
    """Step and score of each report of the search, and whose it is."""
    chosen = facts.outcome.winner.trial_id
    return [
        {
            "trial": trial.trial_id,
            "step": report.step,
            "score": score,
            "of": CHOSEN if trial.trial_id == chosen else OTHERS,
        }
        for trial in facts.trials
        for report in trial.reports
        if math.isfinite(score := report.metrics[facts.metric.name])
    ]


def _make_spec(facts: CardFacts, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Lines through the rungs, the chosen one on top, over the level of the untuned base."""
    name = facts.metric.name
    base = facts.outcome.scores.get("validation_base", {}).get(name, math.nan)
    kinds = [kind for kind in COLOURS if kind != BASE or math.isfinite(base)]
    colour = encode_name("of", kinds, [COLOURS[kind] for kind in kinds])
    title = f"{name} on validation"
    if len(title) > MAX_TITLE_CHARACTERS:
        title = f"{title[:MAX_TITLE_CHARACTERS]}..."
    y, x = encode_score(title), encode_number("step", "optimizer step")
    lines = {"detail": {"field": "trial"}, "x": x, "y": y, "color": colour}
    looks: dict[str, dict[str, Any]] = {
        OTHERS: {"strokeWidth": 1.2, "opacity": 0.6},
        CHOSEN: {"strokeWidth": 3, "opacity": 1},
    }
    layers = [
        draw("line", lines, where={"field": "of", "equal": kind}, point=True, **look)
        for kind, look in looks.items()
    ]
    if BASE in kinds:
        level, at = [{"score": base, "of": BASE}], {"y": y, "color": colour}
        layers.insert(0, draw("rule", at, level, strokeDash=[6, 4], strokeWidth=2))
    return {**SIZE, "background": "white", "data": {"values": points}, "layer": layers}
