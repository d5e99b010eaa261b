"""A search as a W&B sweep: real wandb, a local server that speaks its API."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import wandb

from search_spaces.lora import LoraSpace
from sweeps.tracking import follow_log, wandb_session, wandb_stop
from sweeps.tracking.wandb_mode import check_settings
from sweeps.tracking.wandb_stop import OpenRun, list_stopped
from sweeps.tracking.wandb_sweep import describe_sweep
from tests.sweeps.servers.wandb_files import offline_runs
from tests.sweeps.servers.wandb_server import WandbServer
from tests.sweeps.tracking.test_wandb_tracker import (
    CONFIG,
    METRIC,
    LoggedSweep,
    make_config,
    wait_until,
    warnings_of,
)
from trainables.config import Metric

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server and a login there, in an environment of another W&B run."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    server = WandbServer()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_S", 3.0)
    yield server
    wandb.teardown()
    server.stop()


def test_sweep_is_told_in_wandbs_words() -> None:
    space = LoraSpace(rsloras=(False,), target_modules=("all", "q_proj,v_proj"))
    config = replace(CONFIG, space=space)
    told = describe_sweep(config, Metric(name="eval_loss", mode="min"), "mine")
    assert told["name"] == "mine" and told["metric"] == {"name": "eval_loss", "goal": "minimize"}
    assert told["parameters"] == {
        "learning_rate": {"distribution": "log_uniform_values", "min": 3e-5, "max": 1e-3},
        "lora_rank": {"values": [8, 16, 32, 64]},
        "alpha_over_rank": {"values": [0.5, 1.0, 2.0]},
        "lora_dropout": {"values": [0.0, 0.05, 0.1]},
        "use_rslora": {"value": False},
        "target_modules": {"values": ["all", "q_proj,v_proj"]},
    }


def test_all_runs_of_a_search_and_of_its_resume_are_in_one_sweep(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWEEP_ID", "RUN_ID", "RESUME", "RUN_GROUP", "JOB_TYPE", "LAUNCH", "NAME"):
        monkeypatch.setenv(f"WANDB_{name}", "must" if name == "RESUME" else "true")
    monkeypatch.setenv("WANDB_FORK_FROM", "nonsense")
    monkeypatch.setenv("WANDB_MODE", "offline")  # which the tracker was told otherwise
    check_settings(CONFIG)
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.complete(0)
    final = replace(make_config(0), trial_id="f0000s1")
    sweep.start_final(make_config(0), final.trial_id, seed=7)
    sweep.report(final, 10)
    sweep.end(final, "completed")
    sweep.tracker.finish()
    assert "WANDB_SWEEP_ID" not in os.environ and "WANDB_RUN_ID" not in os.environ
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.complete(1)
    sweep.report(make_config(0), 40)
    sweep.tracker.finish()
    ((sweep_id, told),) = server.sweeps.items()
    assert (
        told["metric"] == {"name": METRIC.name, "goal": "maximize"} and told["name"] == "my sweep"
    )
    facts = {run.facts["displayName"]: run.facts for run in server.runs.values()}
    assert {name: of["sweep"] for name, of in facts.items()} == dict.fromkeys(
        ("t0000", "f0000s1", "t0001"), sweep_id
    )
    assert {of["jobType"] for of in facts.values()} == {"trial", "final"}
    assert {of["groupName"] for of in facts.values()} == {"my sweep"}
    for run_id, run in server.runs.items():
        assert set(told["parameters"]) <= run.config.keys(), run_id
        assert run.facts["project"] == "proj"
    (run,) = (run for run in server.runs.values() if run.facts["displayName"] == "t0000")
    assert run.summary[METRIC.name] == 60.0 and run.config["alpha_over_rank"] == 2.0
    wandb.teardown()
    sweep = LoggedSweep(tmp_path / "run", "offline")  # as after a failure
    sweep.complete(2)
    sweep.tracker.finish()
    assert offline_runs(tmp_path / "run")["t0002"].record.sweep_id == sweep_id


def test_server_without_sweeps_costs_a_warning_and_no_run(
    tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.has_sweeps = False
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.complete(0, 1)
    sweep.tracker.finish()
    assert len(server.rows) == 2 and not offline_runs(tmp_path / "run")
    (warning,) = warnings_of(caplog)
    assert "W&B makes no sweep" in warning and "no sweeps" in warning
    server.has_sweeps = True
    LoggedSweep(tmp_path / "run", "online").tracker.finish()
    ((_, told),) = server.sweeps.items()
    assert set(told["prior_runs"]) == server.runs.keys()


def test_stop_button_is_told_within_seconds_and_once(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wandb_stop.POLL_INTERVAL_S + wandb_stop.TIMEOUT_S < 10.0
    monkeypatch.setattr(wandb_stop, "POLL_INTERVAL_S", 0.5)
    told: list[tuple[str, float]] = []
    sweep = LoggedSweep(
        tmp_path / "run", "online", stop=lambda name: told.append((name, time.monotonic()))
    )
    sweep.tracker.start()
    for number in range(3):
        sweep.start(make_config(number))
    wait_until(lambda: len(sweep.wandb._open) == 3)
    (run_id,) = (i for i, run in server.runs.items() if run.facts["displayName"] == "t0001")
    pressed_s = time.monotonic()
    server.press_stop(run_id)
    wait_until(lambda: bool(told))
    ((name, told_s),) = told
    assert name == "t0001" and told_s - pressed_s < 5.0
    time.sleep(2 * wandb_stop.POLL_INTERVAL_S)
    sweep.end(make_config(1), "stopped", "stopped by hand")
    sweep.tracker.finish()
    assert len(told) == 1
    assert server.runs[run_id].summary["reason"] == "stopped by hand"


def test_server_that_does_not_know_of_stops_is_an_error_that_can_be_caught(
    server: WandbServer,
) -> None:
    run = OpenRun(server=server.url, api_key="k", entity="me", project="proj", run_id="gone")
    assert list_stopped({"t0000": run}) == set()
    server.refusal = 401
    with pytest.raises(OSError):
        list_stopped({"t0000": run})
    server.refusal = None
    broken = replace(run, server=f"{server.url}/elsewhere")
    with pytest.raises(ValueError, match="the server says"):
        list_stopped({"t0000": broken})


def test_key_is_not_given_to_a_host_that_the_server_redirects_to() -> None:
    asked: list[str | None] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{place.server_port}/other")
            self.end_headers()

        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    place = HTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=place.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{place.server_port}"
    run = OpenRun(server=url, api_key="k", entity="me", project="proj", run_id="r")
    with pytest.raises(OSError, match="302"):
        list_stopped({"t0000": run})
    place.shutdown()
    place.server_close()
    assert asked == []


def test_polls_without_an_answer_are_told_once(
    server: WandbServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_stop, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(wandb_stop, "COALESCE_S", 0.01)
    server.refusal = 401
    buttons = wandb_stop.StopButtons(lambda name: None)
    run = OpenRun(server=server.url, api_key="k", entity="me", project="proj", run_id="gone")
    buttons.watch("t0000", run)
    wait_until(lambda: buttons._num_failures > 2 * wandb_stop.MAX_FAILURES)
    buttons.clear()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "401" in warning and "Stop button" in warning


def test_cut_of_the_network_loses_nothing(tmp_path: Path, server: WandbServer) -> None:
    """What W&B did not get in the cut it gets by sweeps.sync's replay; nothing is there twice."""
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.tracker.start()
    for number in range(3):
        sweep.start(make_config(number))
        sweep.report(make_config(number), 10)
    wait_until(lambda: len(sweep.wandb._open) == 3)
    server.is_silent = True
    began_s = time.monotonic()
    for number in range(2):
        sweep.report(make_config(number), 20)
        sweep.end(make_config(number), "completed")
    assert time.monotonic() - began_s < 1.0
    time.sleep(2.0)
    server.end_outage()
    sweep.report(make_config(2), 20)
    sweep.complete(3)
    sweep.end(make_config(2), "completed")
    sweep.tracker.finish()
    LoggedSweep(tmp_path / "run", "online").tracker.finish()
    steps = {
        run.facts["displayName"]: [row["_step"] for row in server.rows[run_id]]
        for run_id, run in server.runs.items()
    }
    assert steps == {key: [10, 20] for key in ("t0000", "t0001", "t0002", "t0003")}
    assert len(server.sweeps) == 1
    assert {run.summary["status"] for run in server.runs.values()} == {"completed"}
