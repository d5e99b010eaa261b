"""Whether every node of a cluster can run this sweep's trials, before the first one starts."""

import logging
from functools import partial
from pathlib import Path

from cluster.check import Node, find_faults, inspect_nodes
from cluster.find import ClusterError
from cluster.node import NodeFacts
from sweeps.checks import sweep_json
from sweeps.checks.environment import describe_hardware, list_gpus
from sweeps.config import SweepConfig
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
        nodes = _inspect(config, paths)
    except ClusterError as refused:
        raise SweepAborted(refused.error, refused.fix) from None
    hardware = {node.name: _describe(node.facts) for node in nodes if node.facts is not None}
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


def check_late_node(config: SweepConfig, paths: RunPaths, node_id: str) -> bool:
    """Whether packs may use a node that has joined after the check of all; told if not."""
    try:
        nodes = _inspect(config, paths, node_id)
    except ClusterError as refused:
        _log.warning("a node that has joined is not used: %s; %s", refused.error, refused.fix)
        return False
    faults = find_faults(nodes, needs_ampere=not config.tiny)
    for fault in faults:
        use = "is not used" if fault.is_fatal else "has joined"
        _log.warning("node %s %s: %s; %s", fault.node, use, fault.error, fault.fix)
    return bool(nodes) and not any(fault.is_fatal for fault in faults)


def _inspect(config: SweepConfig, paths: RunPaths, node_id: str | None = None) -> list[Node]:
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


def _describe(facts: NodeFacts) -> dict[str, object]:
    return {
        "cpus": facts.num_cpus,
        "memory_gib": facts.memory_gib,
        "gpus": list_gpus(facts.gpus),
    }
