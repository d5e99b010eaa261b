"""Few of the bundled rows, for tests in which commands look at all of them."""

from collections.abc import Iterator

import pytest

from trainables import tiny


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Meanwhile the recipe samsum --tiny has 48 rows a split: to read and tokenize all that there
    are takes most of a command's time. Processes of their own have all."""
    folder = tmp_path_factory.mktemp("few")
    for path in tiny.SAMSUM_DIR.iterdir():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(lines[:48]), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "SAMSUM_DIR", folder)
        yield
