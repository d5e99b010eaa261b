"""Training rows and a base, shared by the tests of packs."""

import pytest
from transformers import PreTrainedModel

from tests.trainables.packing.small_packs import examples_of
from trainables.config import TrainingSettings
from trainables.data.tokens import Example
from trainables.models.base_model import load_base


@pytest.fixture
def examples(settings: TrainingSettings) -> list[Example]:
    """The training rows of the small dataset."""
    return examples_of(settings)


@pytest.fixture(scope="session")
def base(model_dir: str) -> PreTrainedModel:
    """The test-sized model in NF4, computing in float32; packs do not change it."""
    return load_base(model_dir, "float32")
