"""The report that a real sweep leaves."""

import pytest

from sweeps.publish.report.facts import read_facts
from sweeps.publish.report.timeline import list_spans
from tests.sweeps.small_sweep import Finished

pytestmark = pytest.mark.slow


def test_finished_sweep_has_a_report_of_its_result(finished: Finished) -> None:
    html = (finished.folder / "report.html").read_text(encoding="utf-8")
    facts = read_facts(finished.folder)
    assert facts.outcome is not None and facts.verdict is not None
    assert facts.state == "ended" and "data-refresh-s" not in html
    assert f'<p class="value">{facts.outcome.winner.trial_id}</p>' in html
    assert facts.score_interval is not None and len(facts.answers) > 20
    assert str(finished.folder / "report.html") in finished.output


def test_log_of_a_real_sweep_tells_every_slot(finished: Finished) -> None:
    facts = read_facts(finished.folder)
    assert facts.last_told is not None
    spans = list_spans(facts.events, facts.last_told.timestamp())
    assert len({span.trial_id for span in spans}) == len(facts.trials) + len(facts.final_runs)
    assert all(span.pack and span.device for span in spans)
    for span in spans:  # no two trials in one slot at once
        others = [s for s in spans if (s.pack, s.slot) == (span.pack, span.slot) and s is not span]
        assert all(s.began_s >= span.ended_s or s.ended_s <= span.began_s for s in others)
