"""Chat templates that think another way than Qwen3's: never, or in a thought that they begin."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainables.conftest import TEMPLATE
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.data.rows import Row
from trainables.data.tokens import IGNORED, encode_rows, encode_training_rows
from trainables.files import write_json
from trainables.metrics.eval_result import read_answers
from trainables.models.base_model import load_tokenizer
from trainables.models.chat_template import list_stop_ids
from trainables.models.model_files import read_json
from trainables.models.tokenizer_file import TokenizerFile
from trainables.packing.service import in_process
from trainables.solo import trainer

NEVER = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""As Qwen3-4B-Instruct-2507's."""
BEGINS = TEMPLATE.removesuffix("{%- endif %}{%- endif %}") + (
    "{%- else %}{{- '<think>\n' }}{%- endif %}{%- endif %}"
)
"""As Qwen3.5's."""
ROW = Row(id="1", prompt="Ann: Hi\nBob: Bye", target="Ann greets Bob.", thought="Two people.")
PROMPT = "<|im_start|>user\nAnn: Hi\nBob: Bye<|im_end|>\n<|im_start|>assistant\n"


def model_with(template: str, model_dir: str, folder: Path) -> str:
    """The test-sized model with another template, and the end of a turn as its end of text."""
    shutil.copytree(model_dir, folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", config | {"eos_token": "<|im_end|>"})
    return str(folder)


@pytest.fixture
def instruct_dir(model_dir: str, tmp_path: Path) -> str:
    return model_with(NEVER, model_dir, tmp_path / "instruct")


@pytest.mark.parametrize("load", [load_tokenizer, TokenizerFile])
def test_model_that_never_thinks_answers_at_once(
    load: Callable[[str], TokenizerFile], instruct_dir: str
) -> None:
    """In training and in evaluation, with both readers of tokenizers."""
    tokenizer, reader = load(instruct_dir), load_tokenizer(instruct_dir)
    (trained,) = encode_training_rows(tokenizer, [ROW], 192, 16)
    (scored,) = encode_rows(tokenizer, [ROW], 192)
    assert reader.decode(trained.input_ids) == f"{PROMPT}{ROW.target}<|im_end|>"
    assert scored.prompt_ids == trained.prompt_ids and reader.decode(scored.prompt_ids) == PROMPT
    labelled = [label for label in trained.labels if label != IGNORED]
    assert labelled == trained.target_ids
    assert reader.decode(labelled) == f"{ROW.target}<|im_end|>"
    assert reader.convert_ids_to_tokens(list_stop_ids(tokenizer)) == ["<|im_end|>"]


@pytest.mark.slow
def test_engines_train_and_score_a_model_that_never_thinks_alike(
    settings: TrainingSettings, instruct_dir: str, tmp_path: Path
) -> None:
    settings = replace(settings, model=instruct_dir)
    params = Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=5e-3)
    reports: dict[str, list[TrialReport]] = {"packed": [], "solo": []}
    for name, train in (("packed", in_process.train), ("solo", trainer.train)):
        trial = TrialConfig(
            trial_id="t0000", params=params, settings=settings, folder=tmp_path / name
        )
        train(trial, reports[name].append)
    for packed, solo in zip(*reports.values(), strict=True):
        assert packed.train_loss == pytest.approx(solo.train_loss, rel=1e-5)
        assert packed.metrics == pytest.approx(solo.metrics, rel=1e-5)
    answers = [read_answers(reports[name][-1].checkpoint).answers for name in reports]
    assert answers[0] == answers[1] and len(answers[0]) == settings.eval_rows


@pytest.mark.parametrize("load", [load_tokenizer, TokenizerFile])
def test_thought_that_the_prompt_begins_is_not_begun_twice(
    load: Callable[[str], TokenizerFile], model_dir: str, tmp_path: Path
) -> None:
    folder = model_with(BEGINS, model_dir, tmp_path / "begins")
    tokenizer, reader = load(folder), load_tokenizer(folder)
    whole = f"{PROMPT}<think>\n{ROW.thought}\n</think>\n\n{ROW.target}<|im_end|>"
    (thinks,) = encode_training_rows(tokenizer, [ROW], 192, 16, thinking=True)
    (asked,) = encode_rows(tokenizer, [ROW], 192, thinking=True)
    assert reader.decode(thinks.input_ids) == reader.decode(asked.input_ids) == whole
    assert reader.decode(asked.prompt_ids) == f"{PROMPT}<think>\n"
    (at_once,) = encode_training_rows(tokenizer, [replace(ROW, thought="")], 192, 16, thinking=True)
    empty = f"{PROMPT}<think>\n\n</think>\n\n"
    assert reader.decode(at_once.input_ids) == f"{empty}{ROW.target}<|im_end|>"
