"""Nodes whose GPUs hold no trial are told and left out, before a pack starts there."""

import platform
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.check import Node
from cluster.gpus import Gpu
from cluster.node import TRAINING_PACKAGES, NodeFacts, list_versions
from sweeps.checks import nodes
from sweeps.recipes import samsum
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from trainables import tiny
from trainables.models.model_facts import read_model_facts
from trainables.packing.sizing.choose import choose_capacity

CONFIG = replace(samsum(is_tiny=True), name="mine")
choose_pack = partial(choose_capacity, read_model_facts(str(tiny.MODEL_DIR)), CONFIG.settings, 64)


def make_node(name: str, *gpu_gibs: float) -> Node:
    facts = NodeFacts(
        num_cpus=8,
        memory_gib=64.0,
        gpus=tuple(Gpu(f"GPU-{n}", "made up", gib, 9.0) for n, gib in enumerate(gpu_gibs)),
        python=platform.python_version(),
        versions=list_versions(TRAINING_PACKAGES),
        free_gib=100.0,
    )
    return Node(node_id=name, name=name, num_gpus=len(gpu_gibs), facts=facts)


def test_node_whose_gpus_hold_no_trial_is_left_out_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that has not answered is asked again, as one that comes late."""
    silent = Node(node_id="silent", name="silent", num_gpus=1, facts=None)
    found = [make_node("a", 0.1), make_node("b", 0.1, 80.0), make_node("head"), silent]
    assert nodes.find_usable(found, choose_pack) == {"a": False, "b": True, "head": True}
    (told,) = caplog.messages
    assert told.startswith("node a is left out: one trial of rank 64 ") and "has 0.1 GiB" in told
    assert nodes.find_usable(found, None) == {"a": True, "b": True, "head": True}


def test_late_node_is_recorded_if_its_gpus_hold_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = replace(CONFIG, runs_dir=str(tmp_path)), RunPaths(tmp_path)
    log = EventLog(paths.events)
    joined = {"a": make_node("a", 0.1), "b": make_node("b", 80.0)}
    monkeypatch.setattr(nodes, "_inspect_nodes", lambda config, paths, node_id: [joined[node_id]])
    find_fault = partial(nodes.find_late_fault, config, paths, log, choose_pack)
    assert "the GPU has 0.1 GiB" in find_fault("a")
    assert read_events(paths.events) == []
    assert find_fault("b") == ""
    (event,) = read_events(paths.events)
    assert (event["kind"], event["node"], event["cpus"]) == ("node_joined", "b", 8)
    assert event["gpus"] == ["made up, 80 GiB"]


def test_hardware_of_all_nodes_is_recorded_and_too_few_gpus_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = [make_node("a", 80.0), make_node("b", 24.0)]
    monkeypatch.setattr(nodes, "_inspect_nodes", lambda config, paths: found)
    added: dict[str, Any] = {}
    monkeypatch.setattr(nodes.sweep_json, "add", lambda paths, **facts: added.update(facts))
    assert nodes.check_nodes(replace(CONFIG, gpus=5), RunPaths(tmp_path)) == found
    assert caplog.messages == ["--gpus 5: the cluster has 2 by now"]
    assert added["hardware"]["nodes"]["b"]["gpus"] == ["made up, 24 GiB"]


def test_folder_of_a_model_is_to_be_shared_unless_it_is_bundled(tmp_path: Path) -> None:
    for model, shared in ((tmp_path, tmp_path), (tiny.MODEL_DIR, None), ("Qwen/Qwen3-0.6B", None)):
        assert nodes._find_shared_model(replace(CONFIG, model=str(model))) == shared
