"""A real Slurm on this machine: slurmctld and two slurmd, which share its address."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "runuser")
NODES = ("n1", "n2")
CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17001 CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17002 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def find_missing() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@contextlib.contextmanager
def start_slurm() -> Iterator[dict[str, str]]:
    """Two nodes while the context lasts; gives the environment in which sbatch reaches them.

    Daemons run in the foreground as children of this process, so that only they are ended.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # the daemons' users have to pass
        for part in ("state", "log", "run", "spool/n1", "spool/n2"):
            (folder / part).mkdir(parents=True)
        for part, user in (("state", "slurm"), ("log", "slurm"), ("run", "munge")):
            shutil.chown(folder / part, user)
        environment = _start_daemons(folder, stack)
        yield environment
        ask(environment, "scancel", "--user=root")
        wait_until(lambda: not ask(environment, "squeue", "-h"), 60)


def _start_daemons(folder: Path, stack: contextlib.ExitStack) -> dict[str, str]:
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=socket.gethostname()))
    environment = os.environ | {"SLURM_CONF": str(conf)}
    run = folder / "run"
    munged = ["munged", "--foreground", f"--socket={run}/munge.socket"]
    munged += [f"--pid-file={run}/munged.pid", f"--log-file={run}/munged.log"]
    munged += [f"--seed-file={run}/munged.seed"]
    commands = [["runuser", "-u", "munge", "--", *munged], ["slurmctld", "-D", "-c"]]
    commands += [["slurmd", "-D", "-N", node] for node in NODES]
    log = stack.enter_context((folder / "log" / "daemons").open("w"))
    for command in commands:
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        stack.callback(daemon.wait)
        stack.callback(daemon.terminate)
        time.sleep(1)
    wait_until(lambda: ask(environment, "sinfo", "-h", "-o", "%D %t") == "2 idle", 60)
    return environment


def wait_until(is_so: Callable[[], bool], limit_s: float) -> None:
    """Waits until something is so.

    Raises:
        TimeoutError: it is not so for limit_s.
    """
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {limit_s} s")
        time.sleep(0.5)


def ask(environment: dict[str, str], *command: str) -> str:
    """What a program of Slurm prints."""
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ended.stdout.strip()
