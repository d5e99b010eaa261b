"""Where a measurement runs: in a process of its own, with a model of random weights."""

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.benchmarks.packing.shapes import SHAPES

Result = TypeVar("Result")


def run_in_own_process(measure: Callable[..., Result], *args: object) -> Result:
    """What it gives; its GPU memory and compiled code end with its process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *args).result()


@contextmanager
def make_random_model(model_config: Path, tokenizer: Path) -> Iterator[Path]:
    """A folder with a model of the shape; model_config is what shapes.check_shape takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_in_own_process(_save_random_model, model_config, folder)
        for file in tokenizer.iterdir():
            if file.suffix != ".safetensors" and not (folder / file.name).exists():
                shutil.copy(file, folder)
        yield folder


def _save_random_model(model_config: Path, folder: Path) -> None:
    import torch  # loads torch, in a process that gives its GPU memory back
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainables.models.base_model import get_device

    shape = SHAPES.get(str(model_config))
    if shape is None:
        config = AutoConfig.from_pretrained(model_config)
    else:
        config = AutoConfig.for_model(**shape)
    with get_device():  # billions of random numbers take minutes on a CPU
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
