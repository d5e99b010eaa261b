"""Real clusters, with and without tokens, are joined by whoever may, and others are told why."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.heads import clean_environment, run_heads, start_driver

JOIN = """
from cluster.find import ClusterError, set_ray_defaults
set_ray_defaults()  # as the checks before every sweep
from cluster.connect import connect
import ray
{before}
try:
    with connect(2) as cluster:
        class Actor:
            def answer(self): return 7
        actor = ray.remote(num_cpus=0.1)(Actor).remote()
        print("joined", cluster.address, ray.get(actor.answer.remote(), timeout=60))
except ClusterError as refused:
    print(f"error: {{refused.error}}")
    print(f"fix: {{refused.fix}}")
"""


@pytest.mark.slow
def test_clusters_are_joined_as_they_ask_for_tokens(tmp_path: Path) -> None:
    """`ray start` guards a cluster by itself once a local Ray has left a token in the home."""
    homes = {name: tmp_path / name for name in ("owner", "stranger", "fresh")}
    for name, home in homes.items():
        (home / ".ray").mkdir(parents=True)
        if name != "fresh":
            (home / ".ray" / "auth_token").write_text(f"{len(name):064}")
    (tmp_path / "tmp" / "ray").mkdir(parents=True)
    with run_heads(homes["owner"], homes["fresh"]) as (guarded, open_one):
        (tmp_path / "tmp" / "ray" / "ray_current_cluster").write_text(guarded)
        drivers = {
            f"joined {guarded} 7": ("owner", {"RAY_TMPDIR": str(tmp_path / "tmp")}),
            f"joined {open_one} 7": ("owner", {"RAY_ADDRESS": open_one}),
            "this user's is not its own": ("stranger", {"RAY_ADDRESS": guarded}),
            "asks for its token, and none was found": ("fresh", {"RAY_ADDRESS": guarded}),
            "RAY_AUTH_MODE=disabled sends none": (
                "owner",
                {"RAY_ADDRESS": guarded, "RAY_AUTH_MODE": "disabled"},
            ),
            "its token, and none was found\n": (
                "fresh",
                {"RAY_ADDRESS": guarded, "RAY_AUTH_MODE": "token"},
            ),
            "token, and this user's is not its own": (
                "fresh",
                {"RAY_ADDRESS": guarded, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64},
            ),
        }
        code = JOIN.format(before="")
        started = {
            told: start_driver(code, homes[name], **environment)
            for told, (name, environment) in drivers.items()
        }
        code = JOIN.format(before="ray.__version__ = '2.1.0'")
        other = start_driver(code, homes["fresh"], RAY_ADDRESS=open_one)
        started["this process Ray 2.1.0 and Python 3."] = other
        started[f"joined {open_one} 7\n"] = start_below_uv(tmp_path, homes["fresh"], open_one)
        for told, driver in started.items():
            stdout, stderr = driver.communicate(timeout=120)
            assert told in stdout, (stdout, stderr)
            assert told.startswith(("joined", "this process")) or "RAY_AUTH_MODE unset" in stdout
            assert stderr == ""
            assert len(stdout.splitlines()) == (1 if told.startswith("joined") else 2)


def start_below_uv(folder: Path, home: Path, address: str) -> "subprocess.Popen[str]":
    """A driver whose parent is called `uv run`, by which Ray tells uv."""
    (folder / "uv").symlink_to("/bin/sh")
    (folder / "run").write_text(f"{sys.executable} -c {shlex.quote(JOIN.format(before=''))}\n:\n")
    return subprocess.Popen(
        [folder / "uv", "run"],
        cwd=folder,
        env=clean_environment(home, RAY_ADDRESS=address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RAY_TMPDIR", "HOME"])
def test_ray_that_cannot_be_had_is_told_in_two_lines(name: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        variables = {"RAY_TMPDIR": folder, name: "/dev/null"}
        code = JOIN.format(before="")
        driver = start_driver(code, tmp_path, **variables)
        stdout, stderr = driver.communicate(timeout=120)
    assert stdout.startswith("error: Ray cannot start on this machine: "), (stdout, stderr)
    assert stdout.splitlines()[1].startswith("fix: ") and len(stdout.splitlines()) == 2


PLACE = """
import os, ray
from cluster.connect import connect
with connect(2):
    print(ray._private.worker._global_node.get_session_dir_path(), "RAY_TMPDIR" in os.environ)
"""


@pytest.mark.slow
def test_files_and_token_of_a_local_ray_are_this_users_alone(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        environment = clean_environment(tmp_path, TMPDIR=folder)
        private = Path(folder) / f"ray-{os.getuid()}"

        def run(code: str) -> str:
            driver = [sys.executable, "-c", code]
            return subprocess.run(driver, env=environment, capture_output=True, text=True).stdout

        session, has_variable = run(PLACE).split()
        assert Path(session).is_relative_to(private) and has_variable == "False"
        assert private.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
        private.chmod(0o777)
        told = run(JOIN.format(before=""))
        assert f"error: {private} is no folder of this user alone" in told and "RAY_TMPDIR" in told
