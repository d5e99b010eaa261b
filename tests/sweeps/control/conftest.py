"""Studies in SQLite open faster."""

from collections.abc import Iterator

import pytest
from alembic.script import ScriptDirectory


@pytest.fixture(scope="module", autouse=True)
def newest_revision_is_found_once() -> Iterator[None]:
    """To know it alembic loads ten files each time that Optuna opens a storage: a third of the time
    of tests that do little else."""
    heads: list[str | None] = []
    find_head = ScriptDirectory.get_current_head

    def get_current_head(scripts: ScriptDirectory) -> str | None:
        if not heads:
            heads.append(find_head(scripts))
        return heads[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "get_current_head", get_current_head)
        yield
