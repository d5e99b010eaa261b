"""The test-sized model and rows are those of tests/trainables."""

from tests.trainables.conftest import data_dir, model_dir, params, settings, tokenizer
from tests.trainables.packing.conftest import examples

__all__ = ["data_dir", "examples", "model_dir", "params", "settings", "tokenizer"]
