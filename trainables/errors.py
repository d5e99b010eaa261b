"""The two ways in which work ends early: one trial fails, or the whole sweep aborts."""

import errno
from typing import NamedTuple


class DiskFault(NamedTuple):
    """What a disk is or does that it should not, and the remedy."""

    state: str
    remedy: str


FULL_DISK = DiskFault("is full", "free space")
"""Also where it is the user's share that is used up."""
LOST_DISK = DiskFault("does not answer", "mount it again")
"""It is broken, or its server has gone."""
_DISK_FAULTS = {
    errno.ENOSPC: FULL_DISK,
    errno.EDQUOT: FULL_DISK,
    errno.EIO: LOST_DISK,
    errno.ESTALE: LOST_DISK,
}
REPEAT = "then repeat the command"
"""Ends every remedy after which the work goes on; a command adds how it is repeated. It is text,
so it passes between processes."""


class TrialFailed(Exception):
    """This trial cannot go on (out of memory, non-finite loss); its neighbours can.

    The message is the reason that the trial's row shows.
    """


class SweepAborted(Exception):
    """Nothing can go on (bad config, data or login). Raised before any GPU is used.

    Args:
        error: what is wrong, with the value that was given.
        fix: what the user can do about it, as one command or sentence.
    """

    def __init__(self, error: str, fix: str) -> None:
        super().__init__(error, fix)
        self.error = error
        self.fix = fix

    @property
    def is_resumable(self) -> bool:
        """Whether the run goes on once the user has done what fix says; else it begins anew."""
        return REPEAT in self.fix

    def __str__(self) -> str:
        return f"error: {self.error}\nfix: {self.fix}"

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows (IPython asks for it): where it was raised helps no user."""
        return str(self).splitlines()


def find_disk_fault(error: BaseException) -> DiskFault | None:
    """What an error says of a disk; None where its cause is another."""
    return _DISK_FAULTS.get(error.errno or 0) if isinstance(error, OSError) else None


def make_unreadable_error(error: OSError, name: str = "") -> SweepAborted:
    """The error of a file that cannot be read, with the remedy for its cause.

    Args:
        name: the file's, where error does not have it.
    """
    fault = find_disk_fault(error)
    fix = fault.remedy if fault else "check its permissions"
    return SweepAborted(f"{name or error.filename} cannot be read: {error.strerror}", fix)


def get_first_line(error: Exception) -> str:
    """An error's message, without what a library adds below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
