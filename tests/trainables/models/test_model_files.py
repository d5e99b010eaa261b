"""What a model's folder says without being loaded."""

import shutil
import sys
from pathlib import Path

import pytest

from trainables.errors import SweepAborted
from trainables.models.base_model import load_tokenizer
from trainables.models.model_files import list_tokenizer_files, read_ahead
from trainables.models.tokenizer_file import TokenizerFile, check_thinking
from trainables.tiny import MODEL_DIR


def test_a_template_without_thoughts_is_refused(tmp_path: Path) -> None:
    check_thinking(TokenizerFile(str(MODEL_DIR)))
    shutil.copytree(MODEL_DIR, tmp_path / "instruct")
    template = tmp_path / "instruct" / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("enable_thinking", "other"), "utf-8")
    with pytest.raises(SweepAborted, match="does not think before it answers"):
        check_thinking(TokenizerFile(str(tmp_path / "instruct")))


def test_a_models_tokenizer_files_make_its_tokenizer(tmp_path: Path) -> None:
    for path in list_tokenizer_files(str(MODEL_DIR)):
        shutil.copy(path, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    copied, own = load_tokenizer(str(tmp_path)), load_tokenizer(str(MODEL_DIR))
    assert copied.get_vocab() == own.get_vocab()
    assert copied.chat_template == own.chat_template
    text = "Will you bring the tickets?"
    assert copied(text)["input_ids"] == own(text)["input_ids"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has read")
def test_weights_are_read_ahead_and_what_is_missing_is_no_error(tmp_path: Path) -> None:
    begun = bytes_read()
    read_ahead(str(MODEL_DIR))
    assert bytes_read() - begun > (MODEL_DIR / "model.safetensors").stat().st_size
    read_ahead(str(tmp_path))
    read_ahead("nobody/has-this-model")


def bytes_read() -> int:
    """By this process so far, from the disk or the system's memory."""
    return int(Path("/proc/self/io").read_text().split()[1])
