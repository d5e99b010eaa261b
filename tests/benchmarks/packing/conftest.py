"""The test-sized model and rows are those of tests/trainables."""

from tests.trainables.conftest import model_dir, params, rows_dir, settings, tokenizer
from tests.trainables.packing.conftest import examples

__all__ = ["examples", "model_dir", "params", "rows_dir", "settings", "tokenizer"]
