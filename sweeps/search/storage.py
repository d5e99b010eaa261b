"""Whether the Optuna study's database can be used, found before Ray starts and without writing."""

import os
from pathlib import Path

from sweeps.search.study import hide_password
from trainables.errors import SweepAborted

TIMEOUT_S = 5
_DRIVERS_WITH_TIMEOUT = ("psycopg", "psycopg2", "pymysql", "mysqldb")


def check_storage(url: str, study: str, *, is_resumed: bool) -> None:
    """Connects to the database of --study-storage, and looks for a study of this name.

    Raises:
        SweepAborted: the URL is none, the database does not answer within seconds, or it holds
            the study of a new sweep already.
    """
    from sqlalchemy import create_engine, exc, inspect, make_url, text  # only for a storage's URL
    from sqlalchemy.pool import NullPool

    shown = hide_password(url)
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
    except (exc.SQLAlchemyError, ImportError, ValueError, TypeError, OSError) as refused:
        cause = str(getattr(refused, "orig", None) or refused).strip().splitlines()
        raise SweepAborted(
            f"the study storage {shown} cannot be used: {(cause or [type(refused).__name__])[0]}",
            "check the URL, that the server runs, and that its driver is installed "
            "(PostgreSQL: pip install '.[postgresql]')",
        ) from None
    if is_taken and not is_resumed:
        raise SweepAborted(
            f"{shown} holds a study named {study!r} already",
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
