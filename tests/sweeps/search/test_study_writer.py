"""The study in a database: a replay of the log; and what an unusable storage says.

The contract runs on SQLite and, where its programs are installed, on a PostgreSQL server that
this file starts and stops.
"""

import dataclasses
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.records.events import EventLog, make_params_fields, make_report_fields
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.search import storage as storage_module
from sweeps.search.storage import open_storage
from sweeps.search.study_writer import StudyWriter, freeze_trial
from sweeps.tracking import follow_log
from sweeps.tracking.follow_log import Trackers
from tests.sweeps.invented_sweep import (
    LOSS,
    METRIC,
    PARAMS,
    SPACE,
    make_final_run,
    make_history,
    make_report,
)
from trainables.errors import SweepAborted

PROGRAMS = sorted(
    folder
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/bin", "usr/bin")
    for folder in Path("/").glob(pattern)
    if (folder / "initdb").exists() and (folder / "pg_ctl").exists()
)
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)
STORAGES = ["sqlite", POSTGRESQL] if PROGRAMS else ["sqlite"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a server of our own on a loopback port, with its files in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        owner = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def call(program: str, *words: str) -> None:
        command = [str(PROGRAMS[-1] / program), "-D", str(folder / "data"), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)

    (folder / "password").write_text("s3cret\n")
    (folder / "password").chmod(0o644)
    port = free_port()
    call("initdb", "-U", "bob", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N")
    call(
        "pg_ctl",
        "-w",
        "-l",
        str(folder / "log"),
        "-o",
        f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
        " -c fsync=off",
        "start",
    )
    yield f"postgresql+psycopg://bob:s3cret@127.0.0.1:{port}/postgres"
    call("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def sqlite_without_fsync() -> Iterator[None]:
    """No test here takes the power away, and a sync costs most of a test's time."""

    def switch_off(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", switch_off)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", switch_off)


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def write(storage: str, name: str, *records: TrialRecord, is_resumed: bool = True) -> StudyWriter:
    """What a process does: nothing is shared with earlier writers but the storage."""
    open_storage(storage, name, METRIC, is_resumed=is_resumed)
    writer = StudyWriter(storage, name, SPACE, METRIC)
    writer.replay([], records)
    return writer


def trials_of(storage: str, name: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=storage).get_trials()


STORY = (
    make_history(0, "completed", (1, 5.0), (3, 6.0)),
    make_history(1, "stopped", (1, 11.0), reason="place 2 of 2 at step 1"),
    make_history(2, "failed", (1, 7.0), reason="loss is nan at step 4"),
    make_history(3, "stopped", reason="stopped by hand"),
    make_history(4, None, (1, 8.0)),
    make_history(5, "failed", reason="out of memory"),
)


def cut(record: TrialRecord, num_reports: int, *, has_ended: bool) -> TrialRecord:
    """What the log had of a trial earlier."""
    ended = {} if has_ended else {"status": None, "reason": ""}
    return dataclasses.replace(record, reports=record.reports[:num_reports], **ended)


def test_states_and_values_are_what_the_log_says(storage: str, name: str) -> None:
    write(storage, name, *STORY, make_final_run("f0000s1", 1, 3.0))
    trials = trials_of(storage, name)
    assert [(t.state, t.value, t.intermediate_values) for t in trials] == [
        (TrialState.COMPLETE, 6.0, {1: 5.0, 3: 6.0}),
        (TrialState.PRUNED, 11.0, {1: 11.0}),
        (TrialState.FAIL, None, {1: 7.0}),
        (TrialState.PRUNED, None, {}),
        (TrialState.RUNNING, None, {1: 8.0}),
        (TrialState.FAIL, None, {}),
    ]
    reasons = [trial.user_attrs.get("reason", "") for trial in trials]
    assert reasons == [record.reason for record in STORY]
    assert {trial.user_attrs["lora_alpha"] for trial in trials} == {PARAMS.lora_alpha}
    assert trials[0].params == SPACE.find_point(vars(PARAMS))


def test_study_grows_with_the_log_and_catches_up_in_any_process(storage: str, name: str) -> None:
    expected = [freeze_trial(record, SPACE, METRIC) for record in STORY]
    writer = write(storage, name)
    for num in range(len(STORY)):
        begun = [cut(r, 0, has_ended=False) for r in STORY[: num + 1]]
        writer.replay([], begun)
        reported = [cut(r, 9, has_ended=False) for r in STORY[: num + 1]]
        if num % 2:  # by a new process, and both told twice
            writer = write(storage, name, *reported)
        writer.replay([], reported)
        writer.replay([], STORY[: num + 1])
        writer.replay([], STORY[: num + 1])
    trials = trials_of(storage, name)
    for trial, frozen in zip(trials, expected, strict=True):
        assert trial.state == frozen.state and trial.values == frozen.values
        assert trial.intermediate_values == frozen.intermediate_values
        assert (trial.params, trial.user_attrs) == (frozen.params, frozen.user_attrs)


def test_study_of_an_older_version_is_completed(storage: str, name: str) -> None:
    """It had start points that wait, and points that a killed process had half drawn."""
    open_storage(storage, name, METRIC, is_resumed=False)
    study = optuna.load_study(study_name=name, storage=storage)
    study.enqueue_trial({"learning_rate": PARAMS.learning_rate})
    study.ask().suggest_float("learning_rate", *SPACE.learning_rates, log=True)
    study.enqueue_trial({"learning_rate": PARAMS.learning_rate})
    write(storage, name, *STORY[:2])
    trials = trials_of(storage, name)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED"]
    assert trials[0].params == trials[1].params == SPACE.find_point(vars(PARAMS))


def test_another_sweeps_study_is_left_as_it_is(storage: str, name: str) -> None:
    other = dataclasses.replace(PARAMS, learning_rate=3e-4)
    write(storage, name, make_history(0, None, (1, 5.0), params=other))
    before = trials_of(storage, name)
    with pytest.raises(ValueError, match="trial 0 has other values"):
        write(storage, name, *STORY)
    assert trials_of(storage, name) == before


def test_lost_lines_of_the_log_shift_no_number(storage: str, name: str) -> None:
    write(storage, name, STORY[0], make_history(2, "failed"))
    states = [trial.state.name for trial in trials_of(storage, name)]
    assert states == ["COMPLETE", "FAIL", "FAIL"]


def test_study_that_another_process_locks_is_written_when_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver is not held up meanwhile, and the lock may last longer than SQLite waits."""
    monkeypatch.setattr(storage_module, "LOCK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(follow_log, "RETRY_INTERVAL_S", 0.1)
    paths = RunPaths(tmp_path)
    opened = open_storage(paths.study_url, "locked", METRIC, is_resumed=False)
    with opened.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 200
    trackers = Trackers(paths, [StudyWriter(paths.study_url, "locked", SPACE, METRIC)])
    log = EventLog(paths.events)
    trackers.start()
    other = sqlite3.connect(paths.optuna_db, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    log.append("trial_started", trial_id="t0000", number=0, params=make_params_fields(PARAMS))
    deadline_s = time.monotonic() + 60
    while "optuna cannot be written" not in caplog.text and time.monotonic() < deadline_s:
        time.sleep(0.05)
    log.append("report", **make_report_fields(make_report("t0000", 1, 5.0)))
    other.execute("COMMIT")
    other.close()
    log.append("trial_ended", trial_id="t0000", status="stopped", reason="")
    trackers.finish()
    assert not trackers.failed and caplog.text.count("optuna cannot be written") == 1
    (trial,) = trials_of(paths.study_url, "locked")
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 5.0})


class KillNow(BaseException):
    """The process dies here."""


def test_writer_killed_before_any_write_is_followed_by_one_that_completes_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = RunPaths(tmp_path).study_url
    left = 0
    for method in (
        *("create_new_trial", "set_trial_param", "set_trial_intermediate_value"),
        *("set_trial_user_attr", "set_trial_state_values"),
    ):
        real = getattr(RDBStorage, method)

        def write_or_die(*args: Any, _real: Callable[..., Any] = real, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KillNow
            return _real(*args, **kwargs)

        monkeypatch.setattr(RDBStorage, method, write_or_die)
    num_kills, story = 0, STORY[:2]
    while True:
        study, left = f"killed-{num_kills}", num_kills + 1
        begun = [cut(record, 0, has_ended=False) for record in story]
        try:
            for records in (begun, story):
                StudyWriter(url, study, SPACE, METRIC).replay([], records)
            break
        except KillNow:
            num_kills += 1
        StudyWriter(url, study, SPACE, METRIC).replay([], story)
        trials = trials_of(url, study)
        assert [t.state for t in trials] == [freeze_trial(r, SPACE, METRIC).state for r in story]
        assert [t.intermediate_values for t in trials] == [r.get_values(METRIC) for r in story]
    assert num_kills == 2 + 3 + 1 + 2


def test_second_study_of_a_name_is_refused_with_resume_as_the_fix(storage: str, name: str) -> None:
    open_storage(storage, name, METRIC, is_resumed=False)
    with pytest.raises(SweepAborted, match="holds a study named") as caught:
        open_storage(storage, name, METRIC, is_resumed=False)
    assert "--resume" in caught.value.fix and "s3cret" not in str(caught.value)
    open_storage(storage, name, METRIC, is_resumed=True)


def test_study_has_the_direction_and_the_name_of_the_metric(storage: str, name: str) -> None:
    for metric, direction in ((METRIC, "MAXIMIZE"), (LOSS, "MINIMIZE")):
        open_storage(storage, f"{name}-{metric.name}", metric, is_resumed=False)
        study = optuna.load_study(study_name=f"{name}-{metric.name}", storage=storage)
        assert (study.direction.name, study.metric_names) == (direction, [metric.name])


def test_password_of_an_unreachable_server_is_not_shown(name: str) -> None:
    for url in (
        f"postgresql+psycopg://bob:s3cret@127.0.0.1:{free_port()}/sweeps",
        f"postgresql+psycopg:///db?host=127.0.0.1&port={free_port()}&user=bob&password=s3cret",
    ):
        with pytest.raises(SweepAborted, match="cannot be used") as caught:
            open_storage(url, name, METRIC, is_resumed=False)
        assert "s3cret" not in str(caught.value) and "Connection refused" in caught.value.error
        assert "bob" in caught.value.error and "postgresql" in caught.value.fix


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "bob:s3cret@host",
        "http://bob:s3cret@host/",
        "sqlite:////no/folder/x.db",
        "postgresql+psycopg://bob:s3cret@127.0.0.1:port/db",
        "redis://:s3cret@127.0.0.1:6379/0",
    ],
)
def test_url_that_cannot_be_used_aborts_without_its_password(url: str, name: str) -> None:
    with pytest.raises(SweepAborted, match=r"the study storage .* cannot be used: .") as caught:
        open_storage(url, name, METRIC, is_resumed=False)
    assert "s3cret" not in str(caught.value)


def test_file_that_is_no_database_aborts(tmp_path: Path, name: str) -> None:
    (tmp_path / "optuna.db").write_text("no database " * 400)
    with pytest.raises(SweepAborted, match="file is not a database"):
        open_storage(f"sqlite:///{tmp_path}/optuna.db", name, METRIC, is_resumed=True)
