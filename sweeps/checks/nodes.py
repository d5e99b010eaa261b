"""Whether every node of a cluster can run this sweep's trials, before the first one starts."""

import logging
from functools import partial
from pathlib import Path

from cluster.check import find_faults, inspect_nodes
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


def check_nodes(config: SweepConfig, paths: RunPaths) -> None:
    """Refuses nodes on which trials would fail or differ, and writes the hardware of all into
    sweep.json; Ray has to be connected."""
    model = Path(config.model)
    is_shared = model.is_dir() and not model.is_relative_to(tiny.FOLDER)
    url = config.storage
    try:
        nodes = inspect_nodes(
            paths.folder,
            model if is_shared else None,
            needs_gpu=not config.tiny,
            use_storage=partial(storage.find_write_fault, url) if url else None,
        )
    except ClusterError as refused:
        raise SweepAborted(refused.error, refused.fix) from None
    hardware = {node.name: _describe(node.facts) for node in nodes if node.facts is not None}
    sweep_json.add(paths, hardware=describe_hardware() | {"nodes": hardware})
    num_gpus = sum(node.num_gpus for node in nodes)
    if 0 < num_gpus < (config.gpus or 0):
        _log.warning("--gpus %d: the cluster has %d by now", config.gpus, num_gpus)
    faults = find_faults(nodes, needs_ampere=False)  # the engine decides, when slots are counted
    fatal = [fault for fault in faults if fault.is_fatal]
    for fault in faults:
        if not fault.is_fatal:
            _log.warning("%s: %s; %s", fault.node, fault.error, fault.fix)
    if fatal:
        words = ["--runs-dir", config.runs_dir, *(["--model", config.model] if is_shared else [])]
        check = f"python -m cluster.check {write_command(*words)}"
        more = f"; {len(fatal) - 1} more faults are shown by" if fatal[1:] else "; checked by"
        first = fatal[0]
        fix = first.fix if url else f"{first.fix}{more} {check}"
        raise SweepAborted(f"node {first.node}: {first.error}", fix)


def _describe(facts: NodeFacts) -> dict[str, object]:
    return {
        "cpus": facts.num_cpus,
        "memory_gib": facts.memory_gib,
        "gpus": list_gpus(facts.gpus),
    }
