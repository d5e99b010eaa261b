"""Greedy answers and the loss of the true targets."""

from pathlib import Path

import pytest
import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from trainables.config import TrainingSettings
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import encode_rows
from trainables.models.base_model import load_base
from trainables.solo.evaluate import (
    compute_label_log_probs,
    compute_row_losses,
    evaluate,
    generate,
    pad_rows,
)


@pytest.fixture(scope="module")
def base(model_dir: str) -> PreTrainedModel:
    """The test-sized base in NF4."""
    return load_base(model_dir, "float32")


@pytest.fixture
def rows(rows_dir: Path) -> list[Row]:
    """All validation rows."""
    return list(read_rows(rows_dir).validation)


def test_batching_does_not_change_the_answers(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> None:
    prompts = [example.prompt_ids for example in encode_rows(tokenizer, rows, 128)]
    assert len({len(prompt) for prompt in prompts}) > 2
    alone = generate(base, tokenizer, prompts, 1, 6)
    together = generate(base, tokenizer, prompts, 5, 6)
    assert together == alone
    assert any(alone)


def test_answer_is_the_greedy_one(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> None:
    prompt = encode_rows(tokenizer, rows[:1], 128)[0].prompt_ids
    ids = list(prompt)
    for _ in range(4):
        ids.append(int(base(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert generate(base, tokenizer, [prompt], 1, 4) == [ids[len(prompt) :]]


def test_loss_of_a_row_is_summed_over_its_labelled_tokens(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> None:
    examples = encode_rows(tokenizer, rows, 128)
    expected = []
    for example in examples:
        logits = base(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        expected.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item())
    with torch.no_grad():
        losses, counts = zip(*compute_row_losses(base, examples, 5), strict=True)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert list(counts) == [len(example.target_ids) for example in examples]


def test_evaluation_repeats_and_draws_no_random_number(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Row],
    settings: TrainingSettings,
) -> None:
    base.train()
    before = torch.get_rng_state()
    first = evaluate(base, tokenizer, rows, Scoring(language="english"), settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert base.training
    assert evaluate(base, tokenizer, rows, Scoring(language="english"), settings) == first


def test_padding_is_on_the_left_and_masked() -> None:
    input_ids, mask = pad_rows([[5, 6, 7], [8]], 0, "left")
    assert input_ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_label_behind_a_sliding_window_is_as_likely_as_alone() -> None:
    torch.manual_seed(4)
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
        attn_implementation="sdpa",
    )
    assert set(config.layer_types) == {"full_attention", "sliding_attention"}
    model = Qwen3ForCausalLM(config).eval()
    prompts = [[3, 4, 5, 6, 7, 8, 9], [7, 8]]
    labels = [[1, 2, 3, 4, 5, 0], [1, 2, 0], [1, 9, 4, 0], [6]]
    with torch.no_grad():
        found = compute_label_log_probs(model, prompts, labels, 2)
        for row, prompt in enumerate(prompts):
            for column, label in enumerate(labels):
                ids = torch.tensor([prompt + label])
                log_probs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                alone = log_probs.gather(1, torch.tensor(label)[:, None]).sum().item()
                assert found[row, column].item() == pytest.approx(alone, rel=1e-5)
