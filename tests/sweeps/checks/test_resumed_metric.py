"""A resume goes on only where its scores compare with those that the run has."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.checks.first_record import describe_metric
from sweeps.checks.preflight import Preflight, check
from sweeps.checks.resume import check_metric
from sweeps.checks.run_folder import open_run
from sweeps.config import SweepConfig
from sweeps.recipes import samsum
from sweeps.records.paths import RunPaths
from sweeps.records.run import read_record
from tests.sweeps.commands import world
from trainables.errors import SweepAborted

pytestmark = pytest.mark.usefixtures("few_rows")

STARTED = (
    '{"time": "2026-11-29T12:00:00Z", "kind": "trial_started", '
    '"trial_id": "t0000", "number": 0, "params": '
    '{"lora_rank": 4, "lora_alpha": 8, "learning_rate": 0.001, "lora_dropout": 0.0, '
    '"use_rslora": false, "target_modules": ["q_proj"]}}\n'
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepConfig:
    for name, value in world(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return replace(samsum(True), name="mine", runs_dir=str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def preflight() -> Preflight:
    return check(replace(samsum(True), wandb="disabled"), is_resumed=False)


def in_turkish(preflight: Preflight) -> Preflight:
    """The same rows, scored by the rules of another language."""
    scoring = replace(preflight.splits.scoring, language="turkish")
    return replace(preflight, splits=replace(preflight.splits, scoring=scoring))


def begun(config: SweepConfig, preflight: Preflight, *, has_trials: bool) -> RunPaths:
    """A run whose process ended."""
    with open_run(config, preflight, is_resumed=False) as paths:
        if has_trials:
            paths.events.write_text(STARTED)
    return paths


def test_resume_with_the_same_metric_goes_on(config: SweepConfig, preflight: Preflight) -> None:
    paths = begun(config, preflight, has_trials=True)
    before = read_record(paths)["metric"]
    with open_run(config, preflight, is_resumed=True):
        pass
    assert read_record(paths)["metric"] == before == describe_metric(preflight)


def test_resume_with_another_metric_is_refused_and_changes_nothing(
    config: SweepConfig, preflight: Preflight
) -> None:
    paths = begun(config, preflight, has_trials=True)
    before = paths.sweep_json.read_bytes()
    refused = pytest.raises(SweepAborted, match="language english -> turkish")
    with refused as caught, open_run(config, in_turkish(preflight), is_resumed=True):
        pass
    assert "another --name" in caught.value.fix and "--resume" not in caught.value.fix
    assert paths.sweep_json.read_bytes() == before


def test_run_without_a_trial_takes_the_metric_as_it_is_now(
    config: SweepConfig, preflight: Preflight
) -> None:
    paths = begun(config, preflight, has_trials=False)
    now = in_turkish(preflight)
    with open_run(config, now, is_resumed=True):
        assert read_record(paths)["metric"] == describe_metric(now)


def saved(preflight: Preflight, **changes: Any) -> dict[str, Any]:
    """The metric in the sweep.json of a run that began under other conditions."""
    kept: dict[str, Any] = json.loads(json.dumps(describe_metric(preflight)))
    return kept | changes | {"fingerprint": "0" * 12}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rules": "0" * 12}, "its code 0{12} -> "), ({"mode": "min"}, "mode min -> max")],
)
def test_other_code_or_direction_is_refused(
    preflight: Preflight, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SweepAborted, match=message):
        check_metric(saved(preflight, **changes), preflight)


def test_other_versions_are_warned_of(
    preflight: Preflight, caplog: pytest.LogCaptureFixture
) -> None:
    versions = {**saved(preflight)["versions"], "nltk": "3.0"}
    with caplog.at_level(logging.WARNING):
        check_metric(saved(preflight, versions=versions), preflight)
    assert "nltk 3.0 -> " in caplog.text and "unicode" not in caplog.text


def test_run_of_a_version_without_fingerprints_goes_on(preflight: Preflight) -> None:
    check_metric({"name": "rougeLsum", "mode": "max"}, preflight)
    check_metric({}, preflight)
