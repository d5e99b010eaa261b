"""Whether W&B is written to online, offline or not at all, and what of the environment it takes."""

import os
import re
from types import ModuleType
from typing import Literal

from sweeps.config import SweepConfig, WandbMode
from trainables.errors import SweepAborted

Mode = Literal["online", "offline", "disabled"]

MODES: dict[str, WandbMode] = {
    **{"": "auto", "run": "online", "dryrun": "offline"},
    **{"online": "online", "offline": "offline", "disabled": "disabled"},
}
"""By what WANDB_MODE may say."""


def resolve_mode(requested: WandbMode, is_tiny: bool) -> Mode:
    """The mode to track in. auto asks WANDB_MODE, then whether wandb finds a login.

    With is_tiny auto is offline (WANDB_MODE=disabled is still honoured), so that a first try
    sends nothing anywhere.

    Raises:
        SweepAborted: online is asked for without a login, or the login or WANDB_MODE is invalid.
    """
    mode = requested if requested != "auto" else _read_environment_mode()
    if requested == "auto" and is_tiny and mode != "disabled":
        return "offline"
    if mode == "auto":
        return "online" if load_session().has_login() else "offline"
    if mode == "online" and not load_session().has_login():
        raise SweepAborted(
            "W&B online needs a login, and none was found",
            "run `wandb login`, or add --wandb offline",
        )
    return mode


def check_settings(config: SweepConfig) -> None:
    """Refuses a project or a variable that wandb refuses, which is loaded only for these."""
    is_set = any(name.startswith("WANDB_") and name != "WANDB_MODE" for name in os.environ)
    names = (config.wandb_project, config.wandb_entity or "a")
    if is_set or not all(re.fullmatch(r"[\w.-]+", name) for name in names):
        load_session().check_settings(config.wandb_project, config.wandb_entity)


def load_session() -> ModuleType:
    """wandb's own half, whose import takes half a second: not for --help."""
    from sweeps.tracking import wandb_session

    return wandb_session


def _read_environment_mode() -> WandbMode:
    named = os.environ.get("WANDB_MODE", "")
    if named not in MODES:
        raise SweepAborted(
            f"WANDB_MODE is {named!r}; it must be online, offline or disabled",
            "unset WANDB_MODE, or give --wandb",
        )
    return MODES[named]
