"""The report that a real sweep leaves."""

import pytest

from sweeps.publish.load_run import load_run
from sweeps.publish.report.answers import read_answers
from sweeps.publish.report.timeline import list_spans
from tests.sweeps.small_sweep import Finished

pytestmark = pytest.mark.slow


def test_finished_sweep_has_a_report_of_its_result(finished: Finished) -> None:
    html = (finished.folder / "report.html").read_text(encoding="utf-8")
    run = load_run(finished.folder)
    assert run.outcome is not None and run.finals is not None
    assert run.state == "ended" and "data-refresh-s" not in html
    assert f'<p class="value">{run.outcome.winner.trial_id}</p>' in html
    assert run.score_interval is not None and len(read_answers(run)[0]) > 20
    assert str(finished.folder / "report.html") in finished.output


def test_log_of_a_real_sweep_tells_every_slot(finished: Finished) -> None:
    run = load_run(finished.folder)
    assert run.last_event_time is not None
    spans = list_spans(run.events, run.last_event_time.timestamp())
    assert len({span.trial_id for span in spans}) == len(run.trials) + len(run.final_runs)
    assert all(span.pack and span.device for span in spans)
    for span in spans:  # no two trials in one slot at once
        others = [s for s in spans if (s.pack, s.slot) == (span.pack, span.slot) and s is not span]
        assert all(s.began_s >= span.ended_s or s.ended_s <= span.began_s for s in others)
