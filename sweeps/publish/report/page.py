"""The report as one HTML file: the template, its style and script, and Vega inside."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources

import vl_convert

from sweeps.publish.load_run import SweepRun
from sweeps.publish.report.comparison import compare_runs
from sweeps.publish.report.sections import describe_run
from sweeps.publish.templates import load_template
from trainables.files import to_strict_json

REFRESH_S = 10
"""How often the page of a sweep that runs loads itself again."""

STALE_S = 900
"""A page of that age is of a sweep that has died, with nobody left to write that: it rests."""


def render(runs: Sequence[SweepRun]) -> str:
    """The page of one run, or of several that are compared.

    Whatever comes from data, labels, models or logs is text in it: the template escapes it, and the
    page's policy runs no script but its own two and loads nothing.
    """
    script = _read("report.js")
    is_running = len(runs) == 1 and runs[0].state == "running"
    page = describe_run(runs[0]) if len(runs) == 1 else compare_runs(runs)
    template = load_template("report/report.html.j2", is_html=True)
    return template.render(
        page=page,
        is_comparison=len(runs) > 1,
        style=_read("report.css"),
        scripts=[_vega(), script],
        hashes=[_hash(_vega()), _hash(script)],
        specs=to_strict_json({plot.key: plot.spec for plot in page["plots"]}),
        refresh_s=REFRESH_S if is_running else 0,
        stale_s=STALE_S,
        written=datetime.now(UTC),
    )


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script; it takes a second to make."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in script.lower() and "<!--" not in script  # it would end there
    return script


@functools.cache
def _read(name: str) -> str:
    return (resources.files("sweeps.publish.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """As a Content-Security-Policy names a script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
