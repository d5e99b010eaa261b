"""wandb's process, settings, login and errors: quiet, bounded in time, in the sweep's folder."""

import json
import logging
import os
from pathlib import Path
from typing import Any, Literal

import wandb
from wandb.env import SERVICE
from wandb.sdk.lib import wbauth
from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from trainables.errors import SweepAborted

INIT_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 30.0

ERRORS: tuple[type[Exception], ...] = (
    wandb.Error, OSError, WandbServiceConnectionError, HandleAbandonedError, MailboxClosedError,
    ServerResponseError,
)  # fmt: skip
"""All that wandb raises for a server, a login, a disk or a process of its own that is gone."""

_log = logging.getLogger(__name__)


def prepare(folder: Path) -> None:
    """Before the first run: keep wandb's logs in folder and its error reports off the network."""
    leave_parents_process()
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def leave_parents_process() -> None:
    """Use a wandb process of our own, although a parent that uses wandb offers its own to us.

    It would outlive us and keep the ids of our runs, and could not be ended to complete files.
    """
    os.environ.pop(SERVICE, None)


def open_run(mode: Literal["online", "offline"], folder: Path, **facts: Any) -> Any:
    """A new run beside the open ones; online, one that goes on if the server knows its id."""
    wandb.setup(wandb.Settings(silent=True))
    return wandb.init(
        mode=mode,
        dir=str(folder),
        reinit="create_new",
        resume="allow" if mode == "online" else None,
        settings=_settings(),
        **facts,
    )


def abandon(run: Any) -> None:
    """Finish a run that will be written again; that it fails is expected."""
    try:
        run.finish(exit_code=1)
    except ERRORS as error:
        _log.debug("W&B run left unfinished: %s", error)


def stop() -> bool:
    """End wandb's process, and say whether it ended well; the next run starts a new one.

    Only then are all files complete: finish() returns before the last rows are flushed. And only
    then may a run take the id of one whose init failed.
    """
    ends: tuple[type[BaseException], ...] = (SystemExit, *ERRORS)
    try:
        wandb.teardown()
    except ends as error:  # SystemExit: wandb passes on its process's exit code
        _log.debug("wandb's process ended badly: %s", error)
        return False
    return True


def raise_if_refused(run: Any) -> None:
    """Raise AuthenticationError if the server refused the login while the run was open.

    finish() succeeds then: only the log of wandb's process tells (seen with wandb 0.31).
    """
    for line in Path(run.settings.log_internal).read_text().splitlines():
        if '"api: HTTP error"' in line and json.loads(line).get("status") in (401, 403):
            raise wandb.errors.AuthenticationError("the server refused the login")


def has_login() -> bool:
    """Whether wandb finds credentials where it looks: environment, netrc and settings files."""
    leave_parents_process()
    host = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    try:
        found = wbauth.authenticate_session(
            host=host, source="sweeps", prompt=False, update_session=False
        )
    except wandb.errors.AuthenticationError as error:
        raise SweepAborted(
            f"the W&B login is invalid: {error}", "run `wandb login`, or add --wandb offline"
        ) from error
    return found is not None


def _settings() -> Any:
    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
        stop_fn=_ignore_stop_button,
        use_dot_wandb=False,
        symlink=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        label_disable=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def _ignore_stop_button() -> None:
    """Without this, W&B's stop button for one run would interrupt the driver and its sweep."""
