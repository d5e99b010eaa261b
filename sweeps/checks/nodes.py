"""Whether every node of a cluster can run this sweep's trials, before the first one starts."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cluster.check import Node, find_faults, inspect_nodes
from cluster.find import ClusterError
from cluster.node import NodeFacts
from sweeps.checks import sweep_json
from sweeps.checks.environment import describe_hardware, list_gpus
from sweeps.config import SweepConfig
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from trainables import storage, tiny
from trainables.errors import SweepAborted
from trainables.shell import write_command

_log = logging.getLogger(__name__)


def check_nodes(config: SweepConfig, paths: RunPaths) -> list[Node]:
    """Refuses nodes on which trials would fail or differ, and writes the hardware of all into
    sweep.json; Ray has to be connected.

    Returns:
        The nodes; one that does not answer is told, and left out by who uses them, if others do.
    """
    try:
        nodes = _inspect_nodes(config, paths)
    except ClusterError as refused:
        raise SweepAborted(refused.error, refused.fix) from None
    hardware = {node.name: _describe_node(node.facts) for node in nodes if node.facts is not None}
    sweep_json.add(paths, hardware=describe_hardware() | {"nodes": hardware})
    num_gpus = sum(node.num_gpus for node in nodes)
    if 0 < num_gpus < (config.gpus or 0):
        _log.warning("--gpus %d: the cluster has %d by now", config.gpus, num_gpus)
    # The engine decides which GPUs do, when slots are counted.
    faults = find_faults(nodes, needs_ampere=False)
    can_train = any(node.facts and bool(node.num_gpus) == bool(num_gpus) for node in nodes)
    fatal = [
        fault for fault in faults if fault.is_fatal and not (fault.column == "answer" and can_train)
    ]
    for fault in faults:
        if fault not in fatal:
            left_out = " is left out" * fault.is_fatal
            _log.warning("node %s%s: %s; %s", fault.node, left_out, fault.error, fault.fix)
    if fatal:
        model = _find_shared_model(config)
        words = ["--runs-dir", config.runs_dir, *(["--model", config.model] if model else [])]
        check = f"python -m cluster.check {write_command(*words)}"
        more = f"; {len(fatal) - 1} more faults are shown by" if fatal[1:] else "; checked by"
        first = fatal[0]
        fix = first.fix if config.storage else f"{first.fix}{more} {check}"
        raise SweepAborted(f"node {first.node}: {first.error}", fix)
    return nodes


def find_late_fault(
    config: SweepConfig,
    paths: RunPaths,
    log: EventLog,
    choose_pack: Callable[[float], object] | None,
    node_id: str,
) -> str:
    """What keeps packs from a node that has joined after the check of all; "" if nothing does, and
    then the log has its hardware."""
    try:
        nodes = _inspect_nodes(config, paths, node_id)
    except ClusterError as refused:
        return f"{refused.error}; {refused.fix}"
    faults = find_faults(nodes, needs_ampere=not config.tiny)
    fatal = [f"{fault.error}; {fault.fix}" for fault in faults if fault.is_fatal]
    fatal += filter(None, (_find_too_small(node, choose_pack) for node in nodes))
    if not fatal:
        for fault in faults:
            _log.warning("node %s has joined: %s; %s", fault.node, fault.error, fault.fix)
        for node in nodes:
            if node.facts:
                log.append("node_joined", node=node.name, **_describe_node(node.facts))
    return "; ".join(fatal)


def find_usable(
    nodes: Sequence[Node], choose_pack: Callable[[float], object] | None
) -> dict[str, bool]:
    """Whether packs may use each node that has answered, by Ray's ids; one whose GPUs are too
    small for choose_pack (as of an Allocation) is told."""
    answered = [node for node in nodes if node.facts is not None]
    too_small = {node.node_id: _find_too_small(node, choose_pack) for node in answered}
    for node in answered:
        if too_small[node.node_id]:
            _log.warning("node %s is left out: %s", node.name, too_small[node.node_id])
    return {node_id: not why for node_id, why in too_small.items()}


def _find_too_small(node: Node, choose_pack: Callable[[float], object] | None) -> str:
    """Why not even the largest GPU of a node holds a trial; "" if it does, or is not known."""
    if choose_pack is None or not node.num_gpus or not node.facts or not node.facts.gpus:
        return ""
    try:
        choose_pack(max(gpu.gib for gpu in node.facts.gpus))
    except SweepAborted as too_small:
        return too_small.error
    return ""


def _inspect_nodes(config: SweepConfig, paths: RunPaths, node_id: str | None = None) -> list[Node]:
    return inspect_nodes(
        paths.folder,
        _find_shared_model(config),
        needs_gpu=not config.tiny,
        use_storage=partial(storage.find_write_fault, config.storage) if config.storage else None,
        node_id=node_id,
    )


def _find_shared_model(config: SweepConfig) -> Path | None:
    """The model's folder, if nodes have to share it."""
    model = Path(config.model)
    return model if model.is_dir() and not model.is_relative_to(tiny.FOLDER) else None


def _describe_node(facts: NodeFacts) -> dict[str, object]:
    return {
        "cpus": facts.num_cpus,
        "memory_gib": facts.memory_gib,
        "gpus": list_gpus(facts.gpus),
    }
