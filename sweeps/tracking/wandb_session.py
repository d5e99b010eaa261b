"""wandb's process, settings, login and errors: quiet, bounded in time, in the sweep's folder."""

import logging
import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError

import wandb
from pydantic import ValidationError

from sweeps.tracking.wandb_stop import OpenRun, ask_server
from trainables.errors import SweepAborted

INIT_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 30.0

VERIFY_TIMEOUT_S = 10

NOT_OURS = (
    "WANDB_SERVICE",
    *("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_LAUNCH", "WANDB_LAUNCH_CONFIG_PATH"),
    *("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM", "WANDB_NAME"),
    *("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS", "WANDB_NOTES", "WANDB_RUN_NAME"),
)
"""Variables of a process that is one run, or starts us; they are taken out of our process for good.

With WANDB_SWEEP_ID or WANDB_LAUNCH wandb drops the ids and the project of our runs. A parent's
WANDB_SERVICE would outlive us and keep our runs' ids, and could not be ended to complete files.
"""

_log = logging.getLogger(__name__)


def open_run(
    mode: Literal["online", "offline"],
    folder: Path,
    *,
    sweep_id: str | None = None,
    stop: Callable[[], None] = lambda: None,
    finish_timeout_s: float = 0.0,
    **facts: Any,
) -> Any:
    """Opens a run beside the open ones; online, it is resumed if the server knows its id.

    wandb's logs stay in folder, and its error reports off the network.

    Args:
        sweep_id: of the W&B sweep that the run belongs to.
        stop: called once if W&B's Stop button is pressed. Without one wandb would interrupt the
            driver, and with it the whole sweep.
        finish_timeout_s: what the run's end may take beyond that of a run of scalars.
    """
    _set_up(folder)
    return wandb.init(
        mode=mode,
        dir=str(folder),
        reinit="create_new",
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            sweep_id=sweep_id,
            stop_fn=stop,
            finish_timeout=FINISH_TIMEOUT_S + finish_timeout_s,
            finish_timeout_raises=True,
            init_timeout=INIT_TIMEOUT_S,
            silent=True,
            console="off",
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
        ),
        **facts,
    )


def find_server(folder: Path) -> str:
    """The URL of the API that runs are sent to."""
    _set_up(folder)
    return str(wandb.setup().settings.base_url)


def find_open_run(run: Any) -> OpenRun | None:
    """Where the server has an open run; None without an API key."""
    settings = run.settings
    if not settings.api_key:
        return None
    return OpenRun(
        server=settings.base_url,
        api_key=settings.api_key,
        entity=run.entity,
        project=run.project,
        run_id=run.id,
    )


def abandon(run: Any) -> None:
    """Finishes a run that will be written again; that it fails is expected."""
    try:
        run.finish(exit_code=1)
    except Exception as error:  # wandb raises many kinds, some of them private
        _log.debug("W&B run left unfinished: %s", error)


def stop() -> bool:
    """Ends wandb's process, and tells whether it ended well; the next run starts a new one.

    Only then are all files complete: finish() returns before the last rows are flushed. And only
    then may a run take the id of one whose init failed.
    """
    try:
        wandb.teardown()
    except (SystemExit, Exception) as error:  # SystemExit passes on its process's exit code
        _log.debug("wandb's process ended badly: %s", error)
        return False
    return True


def raise_if_refused() -> None:
    """Raises wandb.errors.AuthenticationError if the server refuses the login.

    finish() succeeds then (seen with wandb 0.31), although nothing was uploaded.
    """
    wandb.Api(timeout=VERIFY_TIMEOUT_S)  # asks the server to verify the login


def check_settings(project: str, entity: str | None) -> None:
    """Refuses what wandb refuses of what a sweep and the environment set."""
    named, reason = "a setting", ""
    try:
        settings = wandb.Settings(project=project, entity=entity)
        for named in os.environ.keys() - {"WANDB_MODE", *NOT_OURS}:
            settings.update_from_env_vars({named: os.environ[named]})
        named = "WANDB_HTTP_TIMEOUT"  # settings take fractions of a second, wandb.Api does not
        int(os.environ.get(named, 0))
        named = "WANDB_IDENTITY_TOKEN_FILE"  # without it wandb's process dies of a panic
        if os.environ.get(named) and not Path(os.environ[named]).is_file():
            reason = f"{named}: there is no such file"
    except ValidationError as refused:  # its text would show the value, which may be secret
        reason = f"{named}: {refused.errors()[0]['msg']}"
    except wandb.errors.UsageError as refused:
        reason = str(refused)
    except ValueError:
        reason = f"{named}: Input should be whole seconds"
    if reason:
        raise SweepAborted(
            f"W&B refuses a setting: {reason}",
            "correct or unset the WANDB_ variable, or give sweeps.run another --wandb-project, or "
            "--wandb disabled",
        )


def has_login() -> bool:
    """Whether wandb finds credentials where it looks: environment, netrc and settings files.

    Raises:
        SweepAborted: they cannot be valid, or the server does not know the key.
    """
    _set_up(mode="online")
    try:
        is_found = bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.AuthenticationError as error:
        raise _refuse_login(str(error)) from error
    settings = wandb.setup().settings
    if is_found and settings.api_key and _is_refused(settings.base_url, settings.api_key):
        raise _refuse_login(f"{settings.base_url} does not know its key")
    return is_found


def _refuse_login(reason: str) -> SweepAborted:
    fix = "run `wandb login --relogin`, correct WANDB_API_KEY, or add --wandb offline"
    return SweepAborted(f"the W&B login is invalid: {reason}", fix)


def _is_refused(server: str, api_key: str) -> bool:
    """Whether the server says so; one that is not reached may be by the time that it is needed."""
    try:
        answer = ask_server(server, api_key, "query Viewer { viewer { id } }", {})
        return bool(answer["data"]["viewer"] is None)
    except HTTPError as refused:
        return refused.code in (401, 403)
    except (OSError, ValueError, HTTPException, LookupError, TypeError):
        return False


def _set_up(folder: Path | None = None, **settings: Any) -> None:
    """Sets wandb up, with what it keeps beside runs in the sweep's folder."""
    for name in NOT_OURS:
        os.environ.pop(name, None)
    if folder is not None:
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wandb.setup(wandb.Settings(silent=True, **settings))
