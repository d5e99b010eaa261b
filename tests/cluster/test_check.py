"""Every node is asked; what is wrong there is found, each with its fix."""

import json
import os
import platform
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.check import Fault, Node, find_faults, format_table, main
from cluster.connect import Cluster
from cluster.gpus import Gpu
from cluster.node import NOT_INSTALLED, SLOW, TRAINING_PACKAGES, NodeFacts, list_versions
from sweeps.cost.hardware import Hardware
from tests.cluster.heads import PROJECT, clean_environment, run_heads, run_node, start_driver

H200 = Gpu("GPU-a", "NVIDIA H200", 140.4, 9.0)
GOOD = NodeFacts(
    num_cpus=8,
    memory_gib=64.0,
    gpus=(H200,),
    python=platform.python_version(),
    versions=list_versions(TRAINING_PACKAGES),
    free_gib=100.0,
)
WHOLE = Node(name="n1 (10.0.0.1)", num_gpus=1, facts=GOOD)


def test_node_without_a_fault_has_none() -> None:
    assert find_faults([WHOLE]) == []
    assert format_table([WHOLE], []).splitlines()[1].split() == (
        ["n1", "(10.0.0.1)", "ok", "ok", "ok", "ok", "NVIDIA", "H200", "ok", "100", "GiB", "ok"]
    )


@pytest.mark.parametrize(
    ("node", "facts", "column", "error", "fix"),
    [
        ({"facts": None, "silence": "none in 60 s"}, {}, "answer", "none in 60 s", "start Ray"),
        ({"is_heard": False}, {}, "folder", "not seen here", "--runs-dir"),
        ({}, {"folder_fault": "it is not there"}, "folder", "it is not there", "mount"),
        ({}, {"storage_fault": "s3://b cannot be written"}, "folder", "s3://b", "credentials"),
        ({}, {"model_fault": "it is not there"}, "model", "it is not there", "mount"),
        ({}, {"python": "3.10.1"}, "versions", "Python 3.10.1", "use Python"),
        ({}, {"versions": GOOD.versions | {"peft": "0.1"}}, "versions", "peft 0.1", "peft=="),
        ({}, {"gpus": ()}, "GPU", "nvidia-smi tells of none", "--num-gpus 0"),
        ({}, {"gpus": (replace(H200, compute_capability=7.5),)}, "GPU", "7.5", "--engine solo"),
        ({}, {"product_fault": "no kernel image"}, "4-bit", "no kernel image", "torch"),
        ({}, {"product_fault": "CUDA out of memory"}, "4-bit", "out of memory", "wait"),
        ({}, {"free_gib": 0.4}, "disk", "0.4 GiB", "free space"),
        ({"offset_s": -40.0}, {}, "clock", "-40 s", "set-ntp"),
    ],
)
def test_each_fault_is_named_with_its_fix(
    node: dict[str, Any], facts: dict[str, Any], column: str, error: str, fix: str
) -> None:
    bad = replace(WHOLE, **{"facts": replace(GOOD, **facts)} | node, name="n2 (10.0.0.2)")
    (fault,) = find_faults([WHOLE, bad])
    assert (fault.node, fault.column) == ("n2 (10.0.0.2)", column)
    assert error in fault.error and fix in fault.fix
    lines = format_table([WHOLE, bad], [fault]).splitlines()
    assert "FAULT" not in lines[1] and lines[2].count("FAULT") == 1
    assert lines[3:] == [f"{fault.node}: {fault.error}", f"  fix: {fault.fix}"]


def test_what_nodes_say_moves_no_terminal() -> None:
    node = Node(name="n\x1b[2J1", num_gpus=0, facts=None, silence="none\r\nerror: ha\x9b31m")
    text = format_table([node], find_faults([node]))
    assert text.replace("\n", "").isprintable() and len(text.splitlines()) == 4


def test_what_a_driver_lacks_is_asked_of_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = GOOD.versions | {"torch": NOT_INSTALLED}
    monkeypatch.setattr("cluster.check.list_versions", lambda packages: versions)
    assert find_faults([WHOLE]) == []


def test_builds_of_torch_have_to_be_one_only_where_trials_train() -> None:
    version = GOOD.versions["torch"].partition("+")[0]

    def node_with(build: str, num_gpus: int) -> Node:
        facts = replace(GOOD, versions=GOOD.versions | {"torch": f"{version}+{build}"})
        return Node(name=f"{build}, {num_gpus}", num_gpus=num_gpus, facts=facts)

    head, first, second = node_with("cpu", 0), node_with("cu128", 1), node_with("cu126", 1)
    assert find_faults([head, first]) == []
    (fault,) = find_faults([head, first, second])
    assert (fault.node, fault.column, fault.is_fatal) == ("cu126, 1", "versions", False)
    assert f"{version}+cu126 (elsewhere {version}+cu128)" in fault.error


@pytest.mark.slow
def test_a_node_that_leaves_is_not_asked_for_an_answer(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from cluster.check import inspect_nodes
from cluster.connect import connect
with connect(2):
    print([node.facts is not None for node in inspect_nodes(Path("RUNS"), needs_gpu=False)])
"""
    code = code.replace("RUNS", str(tmp_path / "runs"))
    soon = {"RAY_health_check_period_ms": "300", "RAY_health_check_initial_delay_ms": "300"}
    with run_heads(tmp_path, **soon) as (address,):
        with run_node(tmp_path, address):
            driver = start_driver(code, tmp_path, RAY_ADDRESS=address)
            while len(list(tmp_path.glob("runs/.check-*/*"))) < 3 and driver.poll() is None:
                time.sleep(0.05)  # until both have found the folder, and multiply
        stdout, stderr = driver.communicate(timeout=120)
    assert stdout.endswith("[True]\n"), (stdout, stderr)


def test_head_that_holds_no_gpu_needs_no_torch() -> None:
    bare = replace(GOOD, gpus=(), versions={}, product_fault="No module named 'torch'")
    bare = replace(bare, versions=dict.fromkeys(TRAINING_PACKAGES, "not installed"))
    head = replace(WHOLE, num_gpus=0, facts=bare)
    assert find_faults([head, WHOLE]) == []
    assert {fault.column for fault in find_faults([head])} == {"versions", "4-bit"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--model", "/nowhere/model"], "--model /nowhere/model is no folder of a model"),
        (["--model", "m" * 300], "mmm is no folder of a model"),
        (["--mdel", "m"], "unrecognized arguments: --mdel m"),
        ([], "the Ray cluster at RAY_ADDRESS=127.0.0.1:9 does not answer"),
    ],
)
def test_mistakes_are_told_in_two_lines_before_ray_starts(
    words: list[str],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr("sys.argv", ["check", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert [line.split(": ")[0] for line in told] == ["error", "fix"]
    assert error in told[0]
    assert json.loads(captured.out) == dict(line.split(": ", 1) for line in told)


@pytest.mark.slow
def test_one_silent_node_of_two_is_told_and_left_out(tmp_path: Path) -> None:
    """Its processes hang as they start. One that joins in the same way is not used either."""
    other = tmp_path / "other"
    other.mkdir()
    hang = "import sys, time\ntime.sleep(600 * any('default_worker' in a for a in sys.orig_argv))"
    (other / "sitecustomize.py").write_text(hang)
    code = """
import os
from dataclasses import replace
from cluster import check
from cluster.connect import connect
from sweeps.checks import nodes
from sweeps.cost.hardware import Hardware
from sweeps.recipes import samsum
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
check.ANSWER_TIMEOUT_S, check.LOSS_TIMEOUT_S = 45.0, 1.0
nodes.sweep_json.add = lambda paths, **facts: print(len(facts["hardware"]["nodes"]))
config = replace(samsum(is_tiny=True), runs_dir=os.environ["HOME"], name="a")
with connect(2) as cluster:
    found = nodes.check_nodes(config, RunPaths.from_name(config.runs_dir, config.name))
    hardware = Hardware.from_cluster(cluster, found)
    print(cluster.num_gpus, hardware.num_gpus)
    print(len(nodes.find_usable(found, None)))
    for node in sorted(found, key=lambda node: node.facts is None):
        check.ANSWER_TIMEOUT_S = 45.0 if node.facts else 2.0
        paths = RunPaths.from_name(config.runs_dir, config.name)
        print(nodes.find_late_fault(config, paths, EventLog(paths.events), None, node.node_id))
    (joined,) = read_events(paths.events)
    is_here = joined["node"].startswith(os.uname().nodename)
    print(joined["kind"], is_here, joined["cpus"], joined["gpus"])
"""
    with (
        run_heads(tmp_path) as (address,),
        run_node(other, address, "--num-gpus=0", PYTHONPATH=f"{other}:{PROJECT}"),
    ):
        driver = start_driver(code, tmp_path, RAY_ADDRESS=address)
        stdout, stderr = driver.communicate(timeout=150)
    counts, gpus, usable, good, silent, joined = stdout.splitlines()
    assert (counts, gpus, usable, good) == ("1", "0 0", "1", ""), (stdout, stderr)
    assert silent.startswith("no answer: none in 2 s; look into")
    assert joined == f"node_joined True {os.cpu_count()} []"
    assert re.match(r"node .* is left out: no answer: none in 45 s; look into", stderr), stderr


def test_gpus_of_nodes_count_as_ray_counts_them() -> None:
    small, big = (Gpu("GPU-b", "NVIDIA A10", 22.5, 8.6), H200)
    cluster = Cluster(address="10.0.0.1:1", num_nodes=4, num_cpus=9, num_gpus=9)
    nodes = [
        replace(WHOLE, num_gpus=2, facts=replace(GOOD, gpus=(big, small, big))),
        replace(WHOLE, num_gpus=2, facts=replace(GOOD, gpus=(big,))),
        replace(WHOLE, num_gpus=0, facts=replace(GOOD, gpus=(small,))),
        replace(WHOLE, num_gpus=5, facts=None),
    ]
    hardware = Hardware.from_cluster(cluster, nodes)
    assert (hardware.num_cpus, hardware.num_gpus) == (9, 4)
    assert hardware.gpu_gibs == (22.5, 140.4, 140.4, 140.4)
    assert hardware.oldest_gpu == small


SWEEP = """
import os, sys
from sweeps.cli import run_command
from sweeps.run import main
words = ["samsum", "--tiny", "--runs-dir", os.environ["HOME"] + "/sweeps", "--wandb", "disabled"]
run_command(lambda: main(words))
"""


@pytest.mark.slow
def test_defects_of_a_real_node_are_found(tmp_path: Path) -> None:
    """/proc/self/cwd is another folder for each node that has been started in one of its own."""
    home, other = tmp_path / "head", tmp_path / "other"
    for folder in (home / "model", other / "peft-0.1.dist-info", other / "torch"):
        folder.mkdir(parents=True)
    (home / "model" / "config.json").write_text("{}")
    (other / "peft-0.1.dist-info" / "METADATA").write_text("Name: peft\nVersion: 0.1\n")
    (other / "torch" / "__init__.py").write_text("raise ImportError('no binary for it')")
    (other / "nvidia-smi").write_text("#!/bin/sh\necho GPU-a1, NVIDIA T4, 15360, 7.5\n")
    (other / "nvidia-smi").chmod(0o755)
    path = clean_environment(home)["PATH"]
    planted = {"PYTHONPATH": str(other), "PATH": f"{other}:{path}"}
    code = """
import os, sys
os.chdir(os.environ["HOME"])
from cluster.check import main
words = ["--runs-dir", "/proc/self/cwd/runs", "--model", "/proc/self/cwd/model", "--json"]
sys.exit(main(words))
"""
    with (
        run_heads(home) as (address,),
        run_node(other, address, "--num-gpus=1", **planted),
    ):
        driver = start_driver(code, home, RAY_ADDRESS=address)
        sweep = start_driver(SWEEP, home, RAY_ADDRESS=address)
        stdout, stderr = driver.communicate(timeout=150)
        _, refused = sweep.communicate(timeout=150)
    assert sweep.returncode == 2
    *_, error, fix = refused.splitlines()  # a busy machine's slow product is told before
    assert "Traceback" not in refused
    assert error.startswith("error: node ") and "other versions: peft 0.1 (here " in error
    assert fix.startswith("fix: there: pip install peft==") and "python -m cluster.check" in fix
    assert not list((home / "sweeps").iterdir())
    assert driver.returncode == 1, stderr
    found = json.loads(stdout)
    told = [Fault(**fault) for fault in found["faults"] if SLOW not in fault["error"]]
    assert len(found["nodes"]) == 2 and len({fault.node for fault in told}) == 1
    faults = {fault.column: fault for fault in told}
    assert faults.keys() == {"folder", "model", "versions", "GPU", "4-bit"}, stdout
    assert "it is not there" in faults["folder"].error and "mount" in faults["folder"].fix
    assert "it is not there" in faults["model"].error
    assert "peft 0.1" in faults["versions"].error
    assert "NVIDIA T4 has compute capability 7.5" in faults["GPU"].error
    assert "no binary for it" in faults["4-bit"].error
    assert not list((home / "runs").iterdir())
