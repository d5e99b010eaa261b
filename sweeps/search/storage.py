"""The database of the Optuna study: checked before Ray starts, opened, and told without secrets."""

import os
import re
import warnings
from pathlib import Path

import optuna
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from sweeps.records.redact import hide_secrets
from trainables.config import Metric
from trainables.errors import SweepAborted, get_first_line

TIMEOUT_S = 5
LOCK_TIMEOUT_S = 60
"""For which another process may hold SQLite's lock before a write fails, and is tried again."""
_DRIVERS_WITH_TIMEOUT = ("psycopg", "psycopg2", "pymysql", "mysqldb")
_UNUSABLE = (
    *(optuna.exceptions.StorageInternalError, SQLAlchemyError),
    *(ImportError, ValueError, TypeError, OSError),
)


def check_storage(url: str, study: str, *, is_resumed: bool) -> None:
    """Connects to the database of --study-storage, and looks for a study of this name; no writing.

    Raises:
        SweepAborted: the URL is none, the database does not answer within seconds, or it holds
            the study of a new sweep already.
    """
    # No pattern finds the end of such a password, and with a second @ drivers show half of it.
    if not url.startswith("sqlite") and re.search(r"[\s\"'<>]|@.*@", url):
        raise SweepAborted(
            "the study storage's URL has a blank, a quote, <, > or a second @",
            "write the character as its code, e.g. %40 for the @ of a password",
        )
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and not _is_sqlite_file(parsed.database or ""):
            return
        has_timeout = parsed.get_driver_name() in _DRIVERS_WITH_TIMEOUT
        arguments = {"connect_timeout": TIMEOUT_S} if has_timeout else {}
        engine = create_engine(parsed, connect_args=arguments, poolclass=NullPool)
        with engine.connect() as connection:
            query = text("SELECT count(*) FROM studies WHERE study_name = :name")
            has_studies = inspect(connection).has_table("studies")
            is_taken = has_studies and bool(connection.scalar(query, {"name": study}))
    except _UNUSABLE as refused:
        raise _make_unusable_error(url, refused) from None
    if is_taken and not is_resumed:
        raise _make_taken_error(url, study)


def open_storage(
    url: str, name: str, metric: Metric, *, is_resumed: bool
) -> optuna.storages.RDBStorage:
    """Creates the sweep's study in a database, or finds it to go on.

    Args:
        url: SQLAlchemy URL, e.g. sqlite:///…/optuna.db or postgresql+psycopg://….

    Raises:
        SweepAborted: the storage cannot be reached, or holds a study of this name already.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_sqlite = url.startswith("sqlite")
    arguments = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if is_sqlite else {}
    try:
        storage = optuna.storages.RDBStorage(url, arguments)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=metric.direction,
            load_if_exists=is_resumed,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise _make_taken_error(url, name) from None
    except _UNUSABLE as refused:
        raise _make_unusable_error(url, refused) from None
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        study.set_metric_names([metric.name])
    return storage


def _make_unusable_error(url: str, refused: Exception) -> SweepAborted:
    """Has the first line of what the driver said, without what Optuna and SQLAlchemy add."""
    cause = refused.__cause__
    return SweepAborted(
        f"the study storage {hide_secrets(url)} cannot be used: "
        f"{get_first_line(cause if isinstance(cause, Exception) else refused)}",
        "check the URL, that the server runs, and that its driver is installed "
        "(PostgreSQL: pip install '.[postgresql]')",
    )


def _make_taken_error(url: str, study: str) -> SweepAborted:
    return SweepAborted(
        f"{hide_secrets(url)} holds a study named {study!r} already",
        "choose another --name, or go on with it: --resume",
    )


def _is_sqlite_file(database: str) -> bool:
    """Whether a SQLite database is there; connecting would make one.

    Raises:
        OSError: it is not there and cannot be made, or it cannot be written.
    """
    path = Path(database)
    is_there = bool(database) and path.is_file()
    to_write = path if path.exists() else path.parent
    if to_write.is_dir() == (to_write == path) or not os.access(to_write, os.W_OK):
        raise PermissionError(f"{to_write} cannot be written")
    return is_there
