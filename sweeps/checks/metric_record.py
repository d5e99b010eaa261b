"""The metric as sweep.json keeps it: name, direction, and a fingerprint that a resume must meet."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweeps.checks.preflight import Preflight
from trainables.errors import SweepAborted
from trainables.metrics.fingerprints import fingerprint

_log = logging.getLogger(__name__)


def metric_record(found: Preflight) -> dict[str, object]:
    """Name, mode and fingerprint, with all that the fingerprint is of."""
    of = fingerprint(found.task.metric, found.splits.scoring)
    return {"name": of.name, "mode": of.mode, "fingerprint": of.digest} | asdict(of)


def check_metric(saved: Mapping[str, Any], found: Preflight) -> None:
    """Refuses a resume whose new scores would not compare with those that are there.

    Other versions of a library or of Unicode's tables are only warned of: they may move a few
    rows' scores, and a machine that is updated in the middle of a sweep has them for good.

    Args:
        saved: the metric in sweep.json; a run of an older version has no fingerprint to compare.

    Raises:
        SweepAborted: the metric, its direction, its settings or its code changed.
    """
    now = metric_record(found)
    if saved.get("fingerprint", now["fingerprint"]) == now["fingerprint"]:
        return
    changed = [name for name in now if name != "fingerprint" and saved.get(name) != now[name]]
    told = ", ".join(f"{_word(name)} {_shown(saved.get(name), now[name])}" for name in changed)
    if changed != ["versions"]:
        raise SweepAborted(
            f"the metric {now['name']} is not what it was when this sweep began: {told}",
            "resume with the data and the version of this project that it began with "
            "(git_commit in sweep.json), or begin a new sweep with another --name",
        )
    _log.warning("scores from now on may differ slightly from those before: %s", told)


def _word(name: str) -> str:
    return "its code" if name == "rules" else name


def _shown(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
    return f"{before} -> {now}"
