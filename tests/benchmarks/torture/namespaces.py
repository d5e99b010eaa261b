"""Mounts and a network that nobody else on this machine sees: a disk may fill there, a cable be
pulled."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from tests.benchmarks.torture.args import TortureArgs
from tests.sweeps import small_sweep

POSSIBLE = "TORTURE_POSSIBLE"
"""Names what this process may do, where that has been found out."""
NEEDS = {
    "disk": ("--mount", "mount -t tmpfs tmpfs /tmp"),
    "cut": ("--net", "ip link add here type veth peer name there"),
}
"""What unshare makes, and what has to work in there."""


def leave_out_impossible(args: TortureArgs) -> tuple[TortureArgs, list[str]]:
    """What may be done in this process, and which of disk and cut may not, which is told."""
    possible = os.environ[POSSIBLE].split(",")
    left_out = [kind for kind in _list_wanted(args) if kind not in possible]
    if left_out:
        print(f"left out, as it needs root or user namespaces: {', '.join(left_out)}", flush=True)
    fill_disk = args.fill_disk and "disk" in possible
    return replace(args, fill_disk=fill_disk, cut_s=args.cut_s * ("cut" in possible)), left_out


def run_in_own(args: TortureArgs, words: Sequence[str]) -> int:
    """This command in namespaces of its own, for which it is root or made to look so."""
    as_root = ["--user", "--map-root-user"] * (os.geteuid() != 0)
    possible = [kind for kind in _list_wanted(args) if _is_possible(kind, as_root)]
    unshare = ["unshare", *as_root, *(NEEDS[kind][0] for kind in possible)] if possible else []
    return subprocess.run(
        [*unshare, sys.executable, "-m", "tests.benchmarks.torture", *words],
        check=False,
        cwd=small_sweep.PROJECT,
        env=os.environ | {POSSIBLE: ",".join(possible)},
    ).returncode


def _list_wanted(args: TortureArgs) -> list[str]:
    return ["disk"] * args.fill_disk + ["cut"] * (args.cut_s > 0)


def _is_possible(kind: str, as_root: Sequence[str]) -> bool:
    flag, trial = NEEDS[kind]
    command = f"unshare {' '.join(as_root)} {flag} sh -c '{trial}'"
    return subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode == 0
