"""python -m cluster.check: whether every node can run trials, and what to do where one cannot."""

import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.command_line import Parser, abort
from cluster.find import ClusterError, check_address, set_ray_defaults
from cluster.gpus import AMPERE
from cluster.node import (
    NOT_INSTALLED,
    SLOW,
    TRAINING_PACKAGES,
    NodeFacts,
    NodeProbe,
    list_files,
    list_versions,
)

LEAST_FREE_GIB = 2.0
MOST_OFFSET_S = 5.0
ANSWER_TIMEOUT_S = 60.0
"""How long nodes are waited for, the start of a process there included."""
LOSS_TIMEOUT_S = 20.0
"""How long a node that died may count as alive: Ray asks five times, every three seconds."""
COLUMNS = ("answer", "folder", "model", "versions", "GPU", "4-bit", "disk", "clock")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of the cluster, and what it has answered."""

    node_id: str = ""
    """Ray's."""
    name: str
    """Host and address."""
    num_gpus: int
    """Those that Ray counts on it."""
    facts: NodeFacts | None
    """None if there is no answer."""
    silence: str = ""
    """Why there is none."""
    is_heard: bool = True
    """Whether what it wrote to the shared folder is seen here."""
    offset_s: float = 0.0
    """How far its clock is ahead of this one's, beyond what the way there may explain."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with a node."""

    node: str
    column: str
    error: str
    fix: str
    is_fatal: bool = True
    """Whether trials would fail there, or differ."""


def main(argv: Sequence[str] | None = None) -> int:
    """Checks all nodes and prints a table; gives the exit code: 1 if one of them has a fault."""
    parser = Parser(prog="python -m cluster.check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs-dir", default="runs", help="folder that the nodes are to share")
    parser.add_argument("--model", help="folder of a model that the nodes are to read")
    parser.add_argument("--json", action="store_true", help="print one JSON object for programs")
    args = parser.parse_args(argv)
    try:
        nodes = _inspect_cluster(Path(args.runs_dir).expanduser().absolute(), args.model)
    except ClusterError as refused:
        abort(refused.error, refused.fix)
    faults = find_faults(nodes)
    if args.json:
        print(json.dumps({"nodes": list(map(asdict, nodes)), "faults": list(map(asdict, faults))}))
    else:
        print(format_table(nodes, faults))
    return 1 if faults else 0


def _inspect_cluster(runs_dir: Path, model: str | None) -> list[Node]:
    folder = Path(model).expanduser().absolute() if model else None
    if folder and not os.path.isfile(folder / "config.json"):
        raise ClusterError(
            f"--model {model} is no folder of a model: it has no config.json",
            "name a folder; a model of the Hub is loaded by each node itself",
        )
    set_ray_defaults()
    check_address()
    from cluster.connect import connect  # loads Ray, which --help does without

    with connect(num_local_cpus=2):
        return inspect_nodes(runs_dir, folder, needs_gpu=True)


def inspect_nodes(
    folder: Path,
    model: Path | None = None,
    *,
    needs_gpu: bool,
    use_storage: Callable[[], str] | None = None,
    node_id: str | None = None,
) -> list[Node]:
    """Asks every node at once; Ray has to be connected. One that has left meanwhile is no node.

    Args:
        folder: what the nodes have to share and write.
        model: a folder that they have to read.
        needs_gpu: whether torch has to see the GPUs that Ray counts.
        use_storage: writes to object storage, and says why it cannot; then no folder is shared.
        node_id: Ray's, of the only node that is asked.

    Raises:
        ClusterError: the folder cannot be written here.
    """
    import ray  # --help does without
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    files = list_files(model) if model else {}
    token = uuid.uuid4().hex
    meeting = folder / f".check-{token[:8]}"
    try:
        meeting.mkdir(parents=True)
        (meeting / "token").write_text(token)
    except OSError as refused:
        raise ClusterError(
            f"the folder {folder} cannot be written: {refused.strerror}",
            "choose a folder of your own: --runs-dir DIR",
        ) from None
    alive = [node for node in ray.nodes() if node["Alive"] and node_id in (None, node["NodeID"])]
    names = list(map(name_node, alive))
    num_gpus = [int(node["Resources"].get("GPU", 0)) for node in alive]
    probe_class = ray.remote(num_cpus=0)(NodeProbe)
    probes = [
        probe_class.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in alive
    ]
    try:
        answers = [
            probe.inspect.remote(
                meeting, token, node["NodeID"], model, files, num if needs_gpu else 0, use_storage
            )
            for probe, node, num in zip(probes, alive, num_gpus, strict=True)
        ]
        ray.wait(answers, num_returns=len(answers), timeout=ANSWER_TIMEOUT_S)
        nodes = {
            node["NodeID"]: Node(
                node_id=node["NodeID"],
                name=name if names.count(name) == 1 else f"{name}, {node['NodeID'][:6]}",
                num_gpus=num,
                is_heard=use_storage is not None or (meeting / node["NodeID"]).exists(),
                **_read_answer(probe, answer),
            )
            for name, node, num, probe, answer in zip(
                names, alive, num_gpus, probes, answers, strict=True
            )
        }
        left = _find_left({node_id for node_id, node in nodes.items() if node.facts is None})
        return [node for node_id, node in nodes.items() if node_id not in left]
    finally:
        for probe in probes:
            ray.kill(probe)
        shutil.rmtree(meeting, ignore_errors=True)


def name_node(node: Mapping[str, Any]) -> str:
    """Host and address of one of ray.nodes()."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _find_left(silent: set[str]) -> set[str]:
    """Which of these nodes the cluster has lost; of a killed one it learns after some seconds."""
    import ray

    deadline_s = time.monotonic() + LOSS_TIMEOUT_S
    while True:
        left = silent - {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if left == silent or time.monotonic() > deadline_s:
            return left
        time.sleep(0.5)


def _read_answer(probe: Any, answer: Any) -> dict[str, Any]:
    """A node's facts and clock, or why it has not told them."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        facts = ray.get(answer, timeout=0)
        before_s = time.time()
        clock_s = ray.get(probe.read_clock.remote(), timeout=ANSWER_TIMEOUT_S)
        after_s = time.time()
    except GetTimeoutError:
        return {"facts": None, "silence": f"none in {ANSWER_TIMEOUT_S:.0f} s"}
    except RayError as died:
        return {"facts": None, "silence": " ".join(str(died).split())[:300]}
    return {"facts": facts, "offset_s": clock_s - min(max(clock_s, before_s), after_s)}


def find_faults(nodes: Sequence[Node], *, needs_ampere: bool = True) -> list[Fault]:
    """What is wrong with each node, beside this process's Python and packages.

    Args:
        needs_ampere: whether a GPU too old for packs is a fault.
    """
    has_gpus = any(node.num_gpus for node in nodes)
    training = [node for node in nodes if node.num_gpus or not has_gpus]
    builds = [node.facts.versions["torch"] for node in training if node.facts]
    return [
        fault
        for node in nodes
        for fault in _find_node_faults(
            node, needs_ampere=needs_ampere, torch=builds[0] if node in training and builds else ""
        )
    ]


def _find_node_faults(node: Node, *, needs_ampere: bool, torch: str) -> Iterable[Fault]:
    """As find_faults.

    Args:
        torch: version of torch where packs may come to; empty if they do not come to this node,
            which then needs neither torch nor its like.
    """

    def fault(column: str, error: str, fix: str, *, is_fatal: bool = True) -> Fault:
        return Fault(node=node.name, column=column, error=error, fix=fix, is_fatal=is_fatal)

    facts = node.facts
    if facts is None:
        fix = "look into Ray's logs there (/tmp/ray/session_latest/logs), or start Ray there again"
        yield fault("answer", f"no answer: {node.silence}", fix)
        return
    shared = "mount the same storage there at the same path, writable for the user that runs Ray"
    not_seen = "" if node.is_heard else "what it writes there is not seen here"
    if facts.folder_fault or not_seen:
        error = f"the runs folder is not shared: {facts.folder_fault or not_seen}"
        yield fault("folder", error, f"{shared}; or name shared storage: --runs-dir DIR")
    if facts.storage_fault:
        fix = "give the user that runs Ray there credentials for it, and what it needs: s3fs, gcsfs"
        yield fault("folder", facts.storage_fault, fix)
    if facts.model_fault:
        fix = f"{shared}; or name a model of the Hub"
        yield fault("model", f"the model's folder is not shared: {facts.model_fault}", fix)
    here = {"Python": platform.python_version()} | list_versions(TRAINING_PACKAGES)
    there = {"Python": facts.python} | facts.versions
    others = [
        name
        for name in here
        if here[name] != NOT_INSTALLED and _strip_build(here[name]) != _strip_build(there[name])
    ]
    trains = bool(torch)
    if trains and others:
        differences = ", ".join(f"{name} {there[name]} (here {here[name]})" for name in others)
        wanted = " ".join(f"{name}=={here[name]}" for name in others if name != "Python")
        fix = f"there: pip install {wanted}" if wanted else f"use Python {here['Python']} there"
        yield fault("versions", f"other versions: {differences}", fix)
    elif trains and there["torch"] != torch:
        error = f"another build of torch: {there['torch']} (elsewhere {torch})"
        fix = "install one build everywhere, or scores may differ in their last digits"
        yield fault("versions", error, fix, is_fatal=False)
    if node.num_gpus and not facts.gpus:
        error = f"Ray counts {node.num_gpus} GPUs, and nvidia-smi tells of none in 30 s"
        fix = "install nvidia-smi there, or start Ray there with --num-gpus 0"
        yield fault("GPU", error, fix)
    for gpu in facts.gpus if needs_ampere and node.num_gpus else ():
        if gpu.compute_capability < AMPERE:
            error = f"its {gpu.name} has compute capability {gpu.compute_capability}, packs need 8"
            fix = "start Ray there with --num-gpus 0; or --engine solo --compute-dtype float32"
            yield fault("GPU", error, fix)
            break
    if trains and facts.product_fault:
        is_slow = facts.product_fault.startswith(SLOW) or "out of memory" in facts.product_fault
        fix = 'try there: python -c "import torch, bitsandbytes"; install torch for its CUDA'
        fix = "wait until others have left its GPUs, or storage answers faster" if is_slow else fix
        error = f"a 4-bit product fails: {facts.product_fault}"
        yield fault("4-bit", error, fix, is_fatal=not is_slow)
    if facts.free_gib < LEAST_FREE_GIB:
        fix = "free space on the disk of the runs folder, and of /tmp there"
        yield fault("disk", f"{facts.free_gib:.1f} GiB are free", fix)
    if abs(node.offset_s) > MOST_OFFSET_S:
        error = f"its clock is {node.offset_s:+.0f} s off this one's"
        yield fault("clock", error, "there: timedatectl set-ntp true", is_fatal=False)


def _strip_build(version: str) -> str:
    """A version without what it was built for: 2.11.0 of 2.11.0+cu128."""
    return version.partition("+")[0]


def format_table(nodes: Sequence[Node], faults: Sequence[Fault]) -> str:
    """A line a node, then each fault with its fix; without terminal escapes of what nodes say."""
    bad = {(fault.node, fault.column) for fault in faults}
    rows: list[tuple[str, ...]] = [("node", *COLUMNS)]
    for node in nodes:
        cells = [
            "FAULT" if (node.name, name) in bad else _describe_cell(node, name) for name in COLUMNS
        ]
        rows.append((node.name, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for fault in faults:
        lines += [f"{fault.node}: {fault.error}", f"  fix: {fault.fix}"]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _describe_cell(node: Node, column: str) -> str:
    """What a cell without a fault shows."""
    facts = node.facts
    if facts is None:
        return "-"
    if column == "GPU":
        return ", ".join(gpu.name for gpu in facts.gpus) if node.num_gpus else "none"
    return f"{facts.free_gib:.0f} GiB" if column == "disk" else "ok"


if __name__ == "__main__":
    sys.exit(main())
