"""What a result file says of the run that made it, beside its figures."""

import platform
import shlex
from collections.abc import Sequence

from sweeps.checks.environment import describe_hardware, list_versions, read_git_commit


def describe_run(prog: str, words: Sequence[str]) -> dict[str, object]:
    """The command that was given, and what it ran on.

    Args:
        prog: how the benchmark is started.
        words: that followed it.
    """
    return {
        "command": f"{prog} {shlex.join(words)}",
        "commit": read_git_commit(),
        "machine": describe_hardware(),
        "python": platform.python_version(),
        "versions": list_versions(),
    }
