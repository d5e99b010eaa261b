"""The sweep's own W&B run, with real wandb: its offline files are read back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from sweeps.finals.outcome import Outcome, Winner
from sweeps.finals.verdict import Finalist, Verdict
from sweeps.publish.summary import make_summary_fields
from sweeps.recipes import turkish_tweets
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.tracking import wandb_summary
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.wandb_mode import Mode
from sweeps.tracking.wandb_tracker import WandbTracker
from tests.sweeps.invented_sweep import make_final_run
from tests.sweeps.servers.wandb_files import offline_runs
from tests.sweeps.servers.wandb_server import WandbServer
from tests.sweeps.tracking.test_wandb_tracker import CONFIG, make_tracked
from trainables.config import Hyperparameters, Metric
from trainables.metrics.classification import Confusion

METRIC = Metric(name="accuracy")
PARAMS = Hyperparameters(lora_rank=8, lora_alpha=16.0, learning_rate=2e-4)
RUN = make_final_run("f0003s2", 2, 0.0, accuracy=62.0)
OUTCOME = Outcome(
    winner=Winner(run=RUN, tested={"f0003s2": Path("/x")}),
    scores={"test": {"accuracy": 60.5, "macro_f1": 58.0}, "test_base": {"accuracy": 38.0}},
)
VERDICT = Verdict(
    metric=METRIC,
    finalists=(
        Finalist(
            trial_id="t0003", params=PARAMS, metric=METRIC, runs=(RUN,), probability_best=0.75
        ),
        Finalist(trial_id="t0001", params=PARAMS, metric=METRIC, runs=(), probability_best=0.25),
    ),
    lead=1.5,
    interval=(-0.5, 3.5),
)
CONFUSION = Confusion(("nötr", "olumlu"), ((48, 35), (29, 88)))


@pytest.fixture(autouse=True)
def fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a login."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()


ANSWER = {
    "id": "r0",
    "prompt": "the whole dialogue, which stays here",
    "target": "olumlu",
    "prediction": "<script>alert(1)</script>",
    "base_prediction": "=1+1",
    "scores": {"exact_match": 0.0},
    "base_scores": {"exact_match": 100.0},
}


def write_best(folder: Path, num_answers: int = 3) -> dict[str, bytes]:
    """A run's best/, with a file that is not the sweep's; returns what may leave it."""
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 40}
    best = folder / "best"
    best.mkdir(parents=True)
    for name, content in files.items():
        (best / name).write_bytes(content)
    (best / "notes.txt").write_text("rows of the data")
    lines = [json.dumps(ANSWER | {"id": f"r{n}"}) + "\n" for n in range(num_answers)]
    (best / "test_predictions.jsonl").write_text("".join(lines))
    return files


def make_tracker(folder: Path, mode: Mode = "offline") -> Trackers:
    config = replace(turkish_tweets(False), wandb_project="proj")
    return Trackers(RunPaths(folder), [WandbTracker(make_tracked(folder, config, mode))])


def track_summary(
    folder: Path,
    verdict: Verdict | None = None,
    confusion: Confusion | None = None,
    mode: Mode = "offline",
    files: Sequence[str] = (),
) -> None:
    log = EventLog(RunPaths(folder).events)
    log.append("summary", **make_summary_fields(OUTCOME, verdict, confusion), files=files)
    make_tracker(folder, mode).finish()


def test_summary_run_holds_test_scores_finals_and_the_confusion_matrix(tmp_path: Path) -> None:
    track_summary(tmp_path, VERDICT, CONFUSION)
    (run,) = offline_runs(tmp_path).values()
    assert (run.record.display_name, run.record.job_type) == ("summary", "summary")
    assert (run.record.run_group, list(run.record.tags)) == ("my sweep", ["turkish_tweets"])
    assert run.summary["test/accuracy"] == 60.5 and run.summary["test_base/accuracy"] == 38.0
    assert (run.summary["winner"], run.summary["adapter"]) == ("t0003", "f0003s2")
    assert run.summary["finals/mean"] == 62.0 and run.summary["finals/probability_best"] == 0.75
    assert (run.summary["finals/lead_low"], run.summary["finals/lead_high"]) == (-0.5, 3.5)
    assert "finals/deviation" not in run.summary and run.exit_code == 0
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    (table,) = folder.glob("files/media/table/*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert content["data"] == [
        ["nötr", "nötr", 48],
        ["nötr", "olumlu", 35],
        ["olumlu", "nötr", 29],
        ["olumlu", "olumlu", 88],
    ]


def test_summary_run_says_why_the_winner_is_doubted(tmp_path: Path) -> None:
    scores = OUTCOME.scores | {"test_majority": {"accuracy": 63.2}}
    said = ("the winner says 'nötr' to all 9 rows of test", "the winner is no better than x")
    doubted = replace(OUTCOME, scores=scores, doubts=said)
    EventLog(RunPaths(tmp_path).events).append(
        "summary", **make_summary_fields(doubted, None, None)
    )
    make_tracker(tmp_path).finish()
    (run,) = offline_runs(tmp_path).values()
    assert run.summary["doubts"] == "; ".join(said)
    assert run.summary["test_majority/accuracy"] == 63.2


def test_summary_of_texts_has_no_confusion_matrix(tmp_path: Path) -> None:
    track_summary(tmp_path)
    run = offline_runs(tmp_path)["summary"]
    assert run.summary["test/accuracy"] == 60.5 and run.rows == []
    assert not any(name.startswith("finals/") for name in run.summary)


def test_a_sweep_that_is_resumed_after_its_end_keeps_one_summary(tmp_path: Path) -> None:
    track_summary(tmp_path)
    track_summary(tmp_path, VERDICT, CONFUSION)
    runs = offline_runs(tmp_path)
    assert list(runs) == ["summary"] and runs["summary"].summary["finals/lead"] == 1.5


def test_disabled_tracking_writes_no_summary(tmp_path: Path) -> None:
    track_summary(tmp_path, VERDICT, CONFUSION, "disabled")
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def test_summary_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wandb").write_text("a file stands where the folder was")
    track_summary(tmp_path, VERDICT, CONFUSION)
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1 and "W&B failed" in warned[0].getMessage()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server, and a login there."""
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield server
    wandb.teardown()
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["online", "offline, then wandb sync"])
def test_adapter_and_answers_reach_the_server(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(wandb_summary, "MAX_ROWS", 2)
    files, run_folder = write_best(tmp_path / "run"), tmp_path / "run"
    mode: Mode = "online" if way == "online" else "offline"
    track_summary(run_folder, VERDICT, CONFUSION, mode, [*files, "not_there.json"])
    if mode == "offline":
        folders = list(run_folder.glob("wandb/offline-run-*"))
        assert len(folders) == 1 and not server.runs
        subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], cwd=tmp_path, check=True)
    artifact = server.artifacts["model/my-sweep-best"]
    assert artifact.files == files and artifact.is_committed
    metadata = json.loads(artifact.facts["metadata"])
    assert metadata["trained_by"] == make_tracked(tmp_path, CONFIG).make_run_id("f0003s2")
    assert (metadata["winner"], metadata["test/accuracy"]) == ("t0003", 60.5)
    ((run_id, run),) = server.runs.items()
    assert artifact.facts["runName"] == run_id and run.facts["jobType"] == "summary"
    (table,) = (json.loads(text) for name, text in server.files.items() if "/answers_" in name)
    columns = ["row", "reference", "base", "winner", "base/exact_match", "winner/exact_match"]
    said = ["olumlu", "=1+1", "<script>alert(1)</script>", 100.0, 0.0]
    assert table == table | {"columns": columns, "data": [["r0", *said], ["r1", *said]]}
    assert not any(
        b"stays here" in text or b"of the data" in text for text in server.files.values()
    )
    assert len(server.sweeps) == (mode == "online")


def test_large_adapter_stays_here_and_the_summary_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_summary, "MAX_ADAPTER_GIB", 1e-6)
    track_summary(tmp_path, VERDICT, files=list(write_best(tmp_path)))
    run = offline_runs(tmp_path)["summary"]
    assert run.summary["artifact"].startswith("left out: 0.0 GiB")
    assert "sweeps.export" in run.summary["artifact"]
    assert any(key.startswith("answers") for row in run.rows for key in row)
