"""Which rows are scored: a fixed order, the same for every trial, seed and file order. No torch."""

from collections.abc import Sequence

from trainables.config import TrainingSettings
from trainables.data.rows import Row, digest_text


def select_rung_rows(rows: Sequence[Row], settings: TrainingSettings, step: int) -> list[Row]:
    """The validation rows that a report at this step scores."""
    is_last = step >= settings.max_steps or settings.low_rung_eval_rows is None
    num_rows = settings.eval_rows if is_last else settings.low_rung_eval_rows
    return select_fixed_slice(rows, min(num_rows or settings.eval_rows, settings.eval_rows))


def select_fixed_slice(rows: Sequence[Row], num_rows: int) -> list[Row]:
    """The first num_rows rows of a fixed order, the same for every seed.

    Files may be sorted, by label or length, so the order is that of a digest of each row. A larger
    slice holds every smaller one.
    """
    return sorted(rows, key=lambda row: digest_text(f"{row.id}\n{row.prompt}"))[:num_rows]
