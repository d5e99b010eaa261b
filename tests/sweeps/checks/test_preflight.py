"""What preflight finds of W&B, databases, object storage, long rows and start points, before a
start."""

import sqlite3
from pathlib import Path

import optuna
import pytest

from search_spaces.lora import Point
from sweeps.checks.preflight import check_recipe
from tests.sweeps.commands import PROJECT, call, refused, start
from tests.sweeps.invented_sweep import make_config
from trainables.errors import SweepAborted

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")


def test_bad_wandb_environment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    message, fix = refused(tmp_path)
    assert "WANDB_MODE is 'nonsense'" in message
    assert "--wandb" in fix


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("WANDB_BASE_URL", "me:s3cret@api.wandb.ai", "WANDB_BASE_URL: "),
        ("WANDB_SILENT", "maybe", "WANDB_SILENT: Input should be a valid boolean"),
        ("WANDB_INIT_TIMEOUT", "soon", "WANDB_INIT_TIMEOUT: "),
        ("WANDB_HTTP_TIMEOUT", "soon", "WANDB_HTTP_TIMEOUT: Input should be a valid number"),
        (
            "WANDB_IDENTITY_TOKEN_FILE",
            "/s3cret",
            "WANDB_IDENTITY_TOKEN_FILE: there is no such file",
        ),
        ("WANDB__PROXIES", "s3cret", "WANDB__PROXIES: Input should be a valid dictionary"),
        ("WANDB_HTTP_TIMEOUT", "1.5", "WANDB_HTTP_TIMEOUT: Input should be whole seconds"),
        ("WANDB_PROJECT", "a/b", "Invalid project name 'a/b'"),
        ("WANDB_API_KEY", "s3cret" * 8 + "\n", "API key cannot start or end with whitespace"),
    ],
)
def test_wandb_variable_that_wandb_refuses_is_told_without_secrets(
    name: str, value: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    message, fix = refused(tmp_path, "--dry-run")
    assert error in message and "s3cret" not in message
    assert "--wandb disabled" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run", "--wandb", "disabled").code == 0


def test_project_that_wandb_refuses_is_told(tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "--dry-run", "--wandb-project", "a/b")
    assert "Invalid project name 'a/b'" in message
    assert "--wandb-project" in fix


STORAGES = [
    ("nonsense", "Could not parse"),
    ("http://x/y", "Can't load plugin"),
    ("mysql://u:s3cret@x/y", "MySQLdb"),
    ("postgresql+psycopg://u:s3cret@127.0.0.1:9/x", "refused"),
    ("postgresql+psycopg://u:s3cret@127.0.0.1:port/x", "port"),
    ("postgresql+psycopg://u@127.0.0.1:9/x?sslpassword=s3cret", "refused"),
    ("mysql://x/y?passwd=s3cret", "MySQLdb"),
    ("postgresql+psycopg://u:p@s3cret@127.0.0.1:9/x", "second @"),
    ("postgresql+psycopg://u:p s3cret@127.0.0.1:9/x", "second @"),
    ("postgresql+psycopg://u:p's3cret@127.0.0.1:9/x", "second @"),
    ("postgresql+psycopg://127.0.0.1:9/x?user=u&password=p<s3cret", "second @"),
    ("postgresql+psycopg://u:p#s3cret@127.0.0.1:9/x", "refused"),
    ("postgresql+psycopg://127.0.0.1:9/x?user=u&password=p#s3cret", "refused"),
    ("sqlite:///nowhere/x.db", "cannot be written"),
    ("sqlite:///folder", "cannot be written"),
    ("sqlite:///text", "file is not a database"),
]


@pytest.mark.parametrize(("url", "error"), STORAGES)
def test_study_storage_that_cannot_be_used_is_told_without_its_password(
    url: str, error: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database " * 100)
    message, fix = refused(tmp_path, "--study-storage", url)
    assert "the study storage" in message and error in message
    assert "s3cret" not in message + fix


def test_study_of_the_same_name_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(storage=url, study_name="mine")
    assert "a study named 'mine'" in refused(tmp_path, "--study-storage", url, "--name", "mine")[0]
    flags = ("samsum", "--tiny", "--study-storage", url, "--dry-run")
    assert call("sweeps.run", *flags, "--name", "other").code == 0


def test_new_sqlite_storage_is_not_made_by_looking(tmp_path: Path) -> None:
    flags = ("samsum", "--tiny", "--study-storage", "sqlite:///new.db", "--dry-run")
    assert call("sweeps.run", *flags).code == 0
    assert not (tmp_path / "new.db").exists()
    sqlite3.connect(tmp_path / "new.db").close()
    assert call("sweeps.run", *flags).code == 0


def test_everything_is_found_without_torch_and_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from sweeps.run import main; main(['samsum', '--tiny', '--dry-run']); "
        "sys.exit(bool({'torch', 'ray', 'wandb'} & set(sys.modules)))"
    )
    (tmp_path / "probe.py").write_text(code)
    assert start("probe", folder=tmp_path, PYTHONPATH=f"{PROJECT}:{tmp_path}").code == 0


def test_rows_longer_than_the_model_has_positions_are_refused(tmp_path: Path) -> None:
    error, fix = refused(tmp_path, "--max-length-tokens", "2049")
    assert "2,049 is above the 2,048 positions" in error
    assert "--max-length-tokens 2048" in fix


def test_what_is_cut_for_its_length_is_told_in_the_dry_run(tmp_path: Path) -> None:
    flags = ("--dry-run", "--max-length-tokens", "120", "--max-new-tokens", "8")
    output = call("sweeps.run", "samsum", "--tiny", *flags).stdout
    assert "prompts cut to 112 tokens: train " in output and ": --max-length-tokens" in output
    assert "targets longer than the 8 tokens that an answer may have: validation " in output


def test_object_storage_that_holds_other_files_is_refused(tmp_path: Path) -> None:
    thesis = tmp_path / "data" / "night" / "thesis.txt"  # which a sweep that ends early would take
    thesis.parent.mkdir(parents=True)
    thesis.touch()
    flags = ("--name", "night", "--checkpoints", f"file://{tmp_path}/data")
    error, fix = refused(tmp_path, *flags)
    assert "night holds files that are no run's: thesis.txt" in error and "--checkpoints" in fix


@pytest.mark.parametrize("runs_dir", ["data", "data/night", "data/night/runs"])
def test_object_storage_and_the_run_do_not_lie_in_each_other(tmp_path: Path, runs_dir: str) -> None:
    place = f"file://{tmp_path}/data/night" if runs_dir == "data" else f"file://{tmp_path}/data"
    error, fix = refused(
        *(tmp_path, "--name", "night", "--runs-dir", str(tmp_path / runs_dir)),
        *("--checkpoints", place),
    )
    assert "lie in each other" in error and "--runs-dir" in fix


@pytest.mark.parametrize(
    ("point", "error"),
    [
        ({"lora_rnk": 8}, "does not name what a point has"),
        ({}, "does not name what a point has"),
        ({"lora_rank": 0}, "lora_rank is 0; it must be at least 1"),
        ({"lora_rank": "8 or 16"}, "can be no trial"),
        ({"lora_rank": 10**400}, "can be no trial"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"target_modules": "q_proj,"}, "target_modules is"),
    ],
)
def test_start_point_that_is_none_is_refused(point: Point, error: str) -> None:
    with pytest.raises(SweepAborted, match=error):
        check_recipe(make_config(start_points=(point,)))
