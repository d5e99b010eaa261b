"""The two ways in which work ends early: one trial fails, or the whole sweep aborts."""

import errno

FULL_DISK = ("is full", "free space")
LOST_DISK = ("does not answer", "mount it again")
DISK_FAULTS = {
    errno.ENOSPC: FULL_DISK,
    errno.EDQUOT: FULL_DISK,
    errno.EIO: LOST_DISK,
    errno.ESTALE: LOST_DISK,
}
"""What an OSError's number says of a disk, and the remedy. A user's share that is used up counts as
a full disk; a disk that is lost is broken, or its server has gone."""
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


def make_unreadable_error(error: OSError, name: str = "") -> SweepAborted:
    """The error of a file that cannot be read, with the remedy for its cause.

    Args:
        name: the file's, where error does not have it.
    """
    _, remedy = DISK_FAULTS.get(error.errno or 0, ("", "check its permissions"))
    return SweepAborted(f"{name or error.filename} cannot be read: {error.strerror}", remedy)


def get_first_line(error: Exception) -> str:
    """An error's message, without what a library adds below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
