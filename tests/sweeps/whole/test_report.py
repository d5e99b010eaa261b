"""The report that a real sweep leaves."""

import pytest

from sweeps.publish.report.facts import read_facts
from sweeps.publish.report.timeline import list_stays
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
    stays = list_stays(facts.events, facts.last_told.timestamp())
    assert len({stay.trial_id for stay in stays}) == len(facts.trials) + len(facts.final_runs)
    assert all(stay.pack and stay.device for stay in stays)
    for stay in stays:  # no two trials in one slot at once
        others = [s for s in stays if (s.pack, s.slot) == (stay.pack, stay.slot) and s is not stay]
        assert all(s.began_s >= stay.ended_s or s.ended_s <= stay.began_s for s in others)
