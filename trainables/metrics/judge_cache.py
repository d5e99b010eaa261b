"""Replies of judges on disk: what was asked once is never paid for again."""

import hashlib
import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainables.errors import SweepAborted
from trainables.metrics.judge_client import Reply


class ReplyCache:
    """A SQLite file of replies, by a digest of the whole request: model, prompt, texts, sampling.

    It is used by one thread; any number of processes may share the file.

    Raises:
        SweepAborted: the file cannot be opened or is no such cache.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT, text TEXT, "
                "prompt_tokens INTEGER, completion_tokens INTEGER)"
            )
        except (OSError, sqlite3.Error) as error:
            raise SweepAborted(
                f"the cache {path} cannot be used: {error}",
                "make its folder writable, or work on a copy of it",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, body: dict[str, Any]) -> Reply | None:
        """The reply to this request, if it is known."""
        found = self._connection.execute(
            "SELECT text, prompt_tokens, completion_tokens FROM replies WHERE key = ?",
            (key_of(body),),
        ).fetchone()
        if found is None:
            return None
        return Reply(text=found[0], prompt_tokens=found[1], completion_tokens=found[2])

    def put(self, body: dict[str, Any], reply: Reply) -> None:
        """Keeps a reply; it is on disk when this returns."""
        self._connection.execute(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)",
            (
                key_of(body),
                body["model"],
                reply.text,
                reply.prompt_tokens,
                reply.completion_tokens,
            ),
        )


def key_of(body: dict[str, Any]) -> str:
    """Digest of a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
