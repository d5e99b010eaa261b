"""Joins the Ray cluster that is there, or starts a local one for this sweep."""

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.exceptions import AuthenticationError, RayError, RuntimeEnvSetupError

from cluster.find import ClusterError, find_address_to_join, find_local_ray_folder, set_ray_defaults

_PROJECT = Path(__file__).resolve().parent.parent
_PACKAGES = ("sweeps", "trainables", "search_spaces", "cluster")
_OBJECT_STORE_BYTES = 256 * 2**20  # a sweep passes configs and scores, never tensors
_ATTEMPTS = "RAY_gcs_server_port_wait_time_s"
"""Names how often Ray tries to reach a cluster's head, for a second or more each; 20 by itself."""


@dataclass(frozen=True)
class Cluster:
    """The resources of a connected Ray cluster; leaving the context disconnects."""

    address: str
    """Address that was joined, or "local" for one started here."""
    num_nodes: int
    """Nodes that are alive."""
    num_cpus: int
    num_gpus: int

    @property
    def is_local(self) -> bool:
        """Whether it is this machine alone, and ends with this process."""
        return self.address == "local"

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def connect(num_local_cpus: int) -> Cluster:
    """Connects this process to Ray.

    A cluster that RAY_ADDRESS names, or that `ray start` left running on this machine, is
    joined; otherwise one is started that ends with this process. Workers find this project's
    packages before any installed package of the same name.

    Args:
        num_local_cpus: CPU slots that a cluster started here offers.

    Raises:
        ClusterError: the cluster that is there cannot be joined, or none be started here.
    """
    set_ray_defaults()
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_PROJECT), *inherited])
    address = find_address_to_join()
    if address is None:
        _start_ray(num_local_cpus)
    else:
        _join_cluster(address)
    resources = ray.cluster_resources()
    return Cluster(
        address=address or "local",
        num_nodes=sum(node["Alive"] for node in ray.nodes()),
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
    )


def list_draining_nodes() -> Collection[str]:
    """Ray's ids of the nodes that are about to leave the cluster.

    An autoscaler, a cloud's notice or SIGTERM to `ray start --block` has Ray drain a node. Ray 2.60
    tells it by no public function.
    """
    draining: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return draining


def _start_ray(num_cpus: int) -> None:
    """Starts a cluster on this machine, whose files lie in its temporary folder and the home.

    It listens on the machine's outer address; what keeps others out is its token.
    """
    token = Path.home() / ".ray" / "auth_token"
    try:
        with _keep_sessions_private():
            with contextlib.suppress(OSError):  # Ray tells it, if it needs one
                token.parent.mkdir(mode=0o700)
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        with contextlib.suppress(OSError):  # another place was named for it
            token.chmod(0o600)  # Ray writes it for all to read
    except (OSError, AuthenticationError) as refused:
        if isinstance(refused, OSError) and refused.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ClusterError(
            f"Ray cannot start on this machine: {' '.join(str(refused).split())}",
            "it writes into its temporary folder and ~/.ray: give others, RAY_TMPDIR=DIR HOME=DIR",
        ) from refused


@contextlib.contextmanager
def _keep_sessions_private() -> Iterator[None]:
    """Has a Ray that starts meanwhile keep its files where no other user may write.

    Raises:
        ClusterError: that folder is another user's.
    """
    if os.environ.get("RAY_TMPDIR"):
        yield
        return
    folder = find_local_ray_folder()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise ClusterError(
            f"{folder} is no folder of this user alone, and Ray keeps its files there",
            "have it removed, or name another place: RAY_TMPDIR=DIR",
        )
    os.environ["RAY_TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["RAY_TMPDIR"]


def _join_cluster(address: str) -> None:
    """Joins with the user's token only where the cluster asks for one.

    A local Ray leaves a token behind, with which `ray start` then guards a cluster by itself;
    ray.init looks for it only without an address. A cluster without tokens takes a driver that has
    one, and then loses its actors.
    """
    has_mode = "RAY_AUTH_MODE" in os.environ
    num_attempts = os.environ.get(_ATTEMPTS)
    os.environ[_ATTEMPTS] = num_attempts or "1"
    try:
        try:
            _init_ray(address)
        except ConnectionError as refused:
            if has_mode or not _is_about_tokens(refused):
                raise
            if not maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
                raise
            _init_ray(address)
    except (ConnectionError, RuntimeError, ValueError, RayError) as refused:
        raise _explain_refusal(refused, address) from refused
    finally:
        del os.environ[_ATTEMPTS]
        if num_attempts is not None:
            os.environ[_ATTEMPTS] = num_attempts


def _init_ray(address: str) -> None:
    """Without standard error, where Ray's C++ prints every attempt, whatever the level of logs."""
    try:
        with _silence_stderr():
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(_PROJECT / name) for name in _PACKAGES]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except BaseException:
        ray.shutdown()  # what of it had begun
        raise


@contextlib.contextmanager
def _silence_stderr() -> Iterator[None]:
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _is_about_tokens(refused: Exception) -> bool:
    is_refused = "InvalidAuthToken" in f"{refused} {refused.__cause__}"
    return is_refused or isinstance(refused, AuthenticationError)


def _explain_refusal(refused: Exception, address: str) -> ClusterError:
    """What the user is told, instead of what Ray tells at length."""
    place = f"the Ray cluster at {address}"
    if _is_about_tokens(refused):
        mode = os.environ.get("RAY_AUTH_MODE")
        lack = "this user's is not its own" if mode == "token" else "none was found"
        if isinstance(refused, AuthenticationError):
            lack = "none was found"
        elif mode == "disabled":
            lack = "RAY_AUTH_MODE=disabled sends none"
        return ClusterError(
            f"{place} asks for its token, and {lack}",
            "give the one that `ray get-auth-token` prints on its head: in RAY_AUTH_TOKEN, or in "
            "the file ~/.ray/auth_token; leave RAY_AUTH_MODE unset",
        )
    versions = re.findall(r"(?:Ray|Python): (\S+)", str(refused))
    if "Version mismatch" in str(refused) and len(versions) == 4:
        ray_there, python_there, ray_here, python_here = versions
        return ClusterError(
            f"{place} runs Ray {ray_there} and Python {python_there}, this process Ray {ray_here} "
            f"and Python {python_here}",
            "use one version of both everywhere: run the command in the environment that the "
            "cluster was started from, or start the cluster again from this one",
        )
    if isinstance(refused, RuntimeEnvSetupError) and "No such file" in str(refused):
        return ClusterError(
            f"this machine is no node of {place}",
            "run the command on one of its nodes, or have it run there: "
            "ray job submit --working-dir . -- python -m sweeps.run ...",
        )
    reason = " ".join(str(refused).split())
    if isinstance(refused, ConnectionError):
        reason = "something listens there, but no Ray answers"
    return ClusterError(
        f"{place} cannot be joined: {reason}",
        "check RAY_ADDRESS; RAY_ADDRESS=local runs on this machine alone",
    )
