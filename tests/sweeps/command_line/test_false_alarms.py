"""Commands hide what libraries warn of wrongly, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.commands import HANG_S, PROJECT, world
from trainables.tiny import MODEL_DIR

REAL = ("Failed to load", "The tokenizer has", "`use_reentrant` is deprecated")
PROGRAM = f"""
import logging
import warnings

from sweeps.cli import run_command


def main():
    from transformers.trainer_utils import align_special_tokens

    from trainables.models.base_model import load_base, load_tokenizer

    tokenizer = load_tokenizer({str(MODEL_DIR)!r})
    base = load_base({str(MODEL_DIR)!r}, "float32")
    assert len(tokenizer("so " * 9000).input_ids) > tokenizer.model_max_length
    align_special_tokens(base, tokenizer)
    base.is_gradient_checkpointing
    base.dequantize(dtype=base.dtype)
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning({REAL[0]!r})
    logging.getLogger("transformers.trainer_utils").warning({REAL[1]!r})
    warnings.warn({REAL[2]!r}, FutureWarning)


run_command(main)
"""


@pytest.mark.slow
def test_false_alarms_of_a_loaded_model_are_hidden_and_other_warnings_shown(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=PROJECT,
        env=world(tmp_path),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    shown = ended.stderr.splitlines()
    assert len(shown) == len(REAL)
    assert all(text in line for text, line in zip(REAL, shown, strict=True))
