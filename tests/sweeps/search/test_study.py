"""The study: what Optuna is told, what a resume takes over, and what an unusable storage says.

The contract runs on SQLite and, where its programs are installed, on a PostgreSQL server that
this file starts and stops.
"""

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from search_spaces.lora import LoraSpace, Point, make_hyperparameters
from sweeps.cost import plan
from sweeps.search.storage import open_study
from sweeps.search.study import Search, enqueue, num_startup_trials
from tests.sweeps.invented_sweep import LOSS, METRIC, SPACE, make_config, point
from trainables.config import Hyperparameters
from trainables.errors import SweepAborted

PROGRAMS = sorted(
    folder
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/bin", "usr/bin")
    for folder in Path("/").glob(pattern)
    if (folder / "initdb").exists() and (folder / "pg_ctl").exists()
)
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)
STORAGES = ["sqlite", POSTGRESQL] if PROGRAMS else ["sqlite"]
STARTS = (point(2e-4), point(1e-3, rank=16))


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


def begin(storage: str, name: str, **more: Any) -> Search:
    return search_on(open_study(storage, name, METRIC, is_resumed=False), **more)


def go_on(storage: str, name: str, **more: Any) -> Search:
    """What a new process does: nothing is shared with earlier searches but the storage."""
    return search_on(open_study(storage, name, METRIC, is_resumed=True), **more)


def search_on(
    study: optuna.Study, starts: tuple[Point, ...] = (), seed: int = 0, startup: int = 3
) -> Search:
    enqueue(study, starts, 100)
    return Search(study, SPACE, seed, startup)


def trials_of(storage: str, name: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=storage).get_trials()


def params_of(start: Point) -> Hyperparameters:
    return Hyperparameters(**make_hyperparameters(start))


def test_states_and_values_are_what_happened(storage: str, name: str) -> None:
    search = begin(storage, name)
    for number, last_step in ((0, 3), (1, 1), (2, 3), (3, 0)):
        assert search.propose()[0] == number
        for step in (1, 3)[: (last_step + 1) // 2]:
            search.report(number, step, 10.0 * step + number)
    search.finish(0, "completed", 30.0, "")
    search.finish(1, "stopped", 11.0, "place 2 of 2 at step 1")
    search.finish(2, "failed", 32.0, "loss is nan at step 4")
    search.finish(3, "failed", None, "out of memory")
    trials = trials_of(storage, name)
    assert [(t.state, t.value, t.intermediate_values) for t in trials] == [
        (TrialState.COMPLETE, 30.0, {1: 10.0, 3: 30.0}),
        (TrialState.PRUNED, 11.0, {1: 11.0}),
        (TrialState.FAIL, None, {1: 12.0, 3: 32.0}),
        (TrialState.FAIL, None, {}),
    ]
    assert [t.user_attrs.get("reason") for t in trials] == [
        None,
        "place 2 of 2 at step 1",
        "loss is nan at step 4",
        "out of memory",
    ]
    assert search.list_running() == []


def test_start_points_come_first_in_order_and_once(storage: str, name: str) -> None:
    search = begin(storage, name, starts=STARTS)
    assert search.propose() == (0, params_of(STARTS[0]))
    search = go_on(storage, name, starts=STARTS)
    assert search.propose() == (1, params_of(STARTS[1]))
    drawn = [search.propose(), go_on(storage, name, starts=STARTS).propose()]
    assert [number for number, _ in drawn] == [2, 3]
    assert not {params for _, params in drawn} & {params_of(start) for start in STARTS}
    assert len(trials_of(storage, name)) == 4


@pytest.mark.parametrize("is_start_point", [False, True])
def test_half_drawn_trials_of_a_killed_process_are_completed(
    storage: str, name: str, is_start_point: bool
) -> None:
    study = open_study(storage, name, METRIC, is_resumed=False)
    starts = tuple(point(1e-3 + 1e-4 * n) for n in range(6)) if is_start_point else ()
    enqueue(study, starts, 100)
    half = []
    for num_drawn in range(6):
        trial = study.ask()
        draws: list[Callable[[optuna.Trial], object]] = [
            lambda t: t.suggest_float("learning_rate", *SPACE.learning_rates, log=True),
            lambda t: t.suggest_categorical("lora_rank", SPACE.lora_ranks),
            lambda t: t.suggest_categorical("alpha_over_rank", SPACE.alphas_over_rank),
            lambda t: t.suggest_categorical("lora_dropout", SPACE.lora_dropouts),
            lambda t: t.suggest_categorical("use_rslora", SPACE.rsloras),
        ]
        for draw in draws[:num_drawn]:
            draw(trial)
        half.append(dict(trial.params))
    del study, trial

    search = go_on(storage, name, starts=starts)
    assert search.list_running() == [0, 1, 2, 3, 4, 5]
    for number, drawn in enumerate(half):
        params = search.adopt(number)
        whole = trials_of(storage, name)[number].params
        assert SPACE.contains(whole) and params == params_of(whole)
        assert {name: whole[name] for name in drawn} == drawn and len(drawn) == number
        assert not is_start_point or whole == starts[number] | {"target_modules": "all"}
        search.report(number, 1, 5.0)
        search.finish(number, "completed", 5.0, "")
    assert search.list_running() == []
    ended = [(t.state, t.value) for t in trials_of(storage, name)]
    assert ended == [(TrialState.COMPLETE, 5.0)] * 6


def draw_and_score(search: Search) -> Hyperparameters:
    number, params = search.propose()
    search.report(number, 1, -abs(params.learning_rate - 1e-3))
    search.finish(number, ("stopped", "completed")[number % 2], 1.0 - number, "")
    return params


def test_resume_goes_on_as_if_nothing_had_happened(storage: str, name: str) -> None:
    search = begin(storage, f"{name}-whole")
    whole = [draw_and_score(search) for _ in range(8)]
    parts = [draw_and_score(begin(storage, f"{name}-parts"))]
    parts += [draw_and_score(go_on(storage, f"{name}-parts")) for _ in range(7)]
    assert parts == whole
    assert len({params.learning_rate for params in whole}) == len(whole)


def test_another_seed_draws_other_points(storage: str, name: str) -> None:
    drawn = [
        begin(storage, f"{name}-{seed}", seed=seed).propose()[1].learning_rate
        for seed in (0, 1, 4295, 2**40)
    ]
    assert len(set(drawn)) == 4


def test_catching_up_twice_changes_nothing(storage: str, name: str) -> None:
    search = begin(storage, name)
    for _ in range(3):
        search.propose()
    search.report(0, 1, 5.0)
    stories: list[tuple[int, dict[int, float], Any, str]] = [
        (0, {3: 6.0, 1: 5.0}, "stopped", "place 2 of 2 at step 3"),
        (1, {}, "failed", "out of memory"),
        (2, {1: 7.0}, None, ""),
    ]
    seen = []
    for _ in range(2):
        search = go_on(storage, name)
        for number in search.list_running():
            search.adopt(number)
        for number, values, status, reason in stories:
            search.catch_up(number, values, status, reason)
        seen.append(trials_of(storage, name))
    assert seen[0] == seen[1]
    assert [t.state.name for t in seen[0]] == ["PRUNED", "FAIL", "RUNNING"]
    assert [t.intermediate_values for t in seen[0]] == [{1: 5.0, 3: 6.0}, {}, {1: 7.0}]


def test_trial_that_has_ended_stays_as_it_is(storage: str, name: str) -> None:
    search = begin(storage, name)
    search.propose()
    search.finish(0, "failed", None, "node lost")
    before = trials_of(storage, name)
    search.finish(0, "completed", 5.0, "late")
    assert trials_of(storage, name) == before


def test_second_study_of_a_name_is_refused_with_resume_as_the_fix(storage: str, name: str) -> None:
    open_study(storage, name, METRIC, is_resumed=False)
    with pytest.raises(SweepAborted, match="holds a study named") as caught:
        open_study(storage, name, METRIC, is_resumed=False)
    assert "--resume" in caught.value.fix and "s3cret" not in str(caught.value)
    open_study(storage, name, METRIC, is_resumed=True)


def test_study_has_the_direction_and_the_name_of_the_metric(storage: str, name: str) -> None:
    for metric, direction in ((METRIC, "MAXIMIZE"), (LOSS, "MINIMIZE")):
        open_study(storage, f"{name}-{metric.name}", metric, is_resumed=False)
        study = optuna.load_study(study_name=f"{name}-{metric.name}", storage=storage)
        assert (study.direction.name, study.metric_names) == (direction, [metric.name])


def test_number_that_the_study_does_not_hold_aborts(storage: str, name: str) -> None:
    search = begin(storage, name)
    search.propose()
    search.require(0)
    for ask in (search.require, search.adopt):
        with pytest.raises(SweepAborted, match=r"has 1 trials, but .* trial number 1"):
            ask(1)


def test_storage_that_breaks_while_the_sweep_runs_aborts_it(storage: str, name: str) -> None:
    private = storage if storage.startswith("sqlite") else f"{storage}?options=-csearch_path=broken"
    engine = optuna.storages.RDBStorage(storage).engine
    with engine.begin() as connection:
        if private != storage:
            connection.exec_driver_sql("CREATE SCHEMA broken")
    search = begin(private, name)
    search.propose()
    with engine.begin() as connection:
        prefix = "" if private == storage else "broken."
        connection.exec_driver_sql(f"DROP TABLE {prefix}trial_intermediate_values")
    with pytest.raises(SweepAborted, match=r"storage failed: .*trial_intermediate") as hit:
        search.report(0, 1, 5.0)
    assert hit.value.is_resumable


def test_start_points_outside_of_the_space_are_left_out() -> None:
    outside = (point(1.0), point(2e-4, rank=128))
    config = make_config(start_points=(outside[0], *STARTS, outside[1]))
    assert plan.start_points(config) == list(STARTS)
    assert plan.start_points(make_config(start_points=outside)) == []


def test_no_more_start_points_than_trials_are_queued(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path}/optuna.db", "few", METRIC, is_resumed=False)
    enqueue(study, STARTS, 1)
    assert len(study.get_trials()) == 1


def test_trials_proposed_together_differ_after_the_start_up(tmp_path: Path) -> None:
    search = begin(f"sqlite:///{tmp_path}/optuna.db", "together", startup=2)
    for _ in range(3):
        draw_and_score(search)
    assert len({search.propose()[1].learning_rate for _ in range(4)}) == 4


def test_stopped_trials_teach_the_sampler() -> None:
    study = optuna.create_study(direction="maximize")
    space = LoraSpace(learning_rates=(1e-5, 1e-1))
    search = Search(study, space, seed=0, num_startup_trials=12)
    rates = []
    for _ in range(30):
        number, params = search.propose()
        rates.append(params.learning_rate)
        score = 10.0 if params.learning_rate < 1e-3 else 1.0
        search.report(number, 1, score)
        search.finish(number, "stopped", score, "place 2 of 2 at step 1")
    assert sum(rate < 1e-3 for rate in rates[-10:]) >= 8 > sum(r < 1e-3 for r in rates[:12])


def test_password_of_an_unreachable_server_is_not_shown(name: str) -> None:
    for url in (
        f"postgresql+psycopg://bob:s3cret@127.0.0.1:{free_port()}/sweeps",
        f"postgresql+psycopg:///db?host=127.0.0.1&port={free_port()}&user=bob&password=s3cret",
    ):
        with pytest.raises(SweepAborted, match="cannot be used") as caught:
            open_study(url, name, METRIC, is_resumed=False)
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
        open_study(url, name, METRIC, is_resumed=False)
    assert "s3cret" not in str(caught.value)


def test_file_that_is_no_database_aborts(tmp_path: Path, name: str) -> None:
    (tmp_path / "optuna.db").write_text("no database " * 400)
    with pytest.raises(SweepAborted, match="file is not a database"):
        open_study(f"sqlite:///{tmp_path}/optuna.db", name, METRIC, is_resumed=True)


@pytest.mark.parametrize(("num_trials", "expected"), [(100, 10), (32, 10), (12, 4), (1, 1)])
def test_start_up_is_a_third_of_the_sweep_and_ten_at_most(num_trials: int, expected: int) -> None:
    assert num_startup_trials(num_trials) == expected
