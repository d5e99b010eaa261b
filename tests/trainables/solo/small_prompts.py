"""Prompts of the small dataset, and what labels behind them must be worth."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainables.data.prepared_rows import read_rows
from trainables.data.tokens import encode_rows, encode_targets
from trainables.solo.evaluate import compute_label_log_probs


def validation_prompts(tokenizer: PreTrainedTokenizerBase, rows_dir: Path) -> list[list[int]]:
    """Of several lengths."""
    found = [e.prompt_ids for e in encode_rows(tokenizer, read_rows(rows_dir).validation, 128)]
    assert len(set(map(len, found))) > 2
    return found


def check_labels(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    batch_size: int,
) -> None:
    """Labels are as likely behind prompts that are read together as each read alone."""
    labels = encode_targets(tokenizer, ["tickets", "a cake", "a map"])
    with torch.no_grad():
        together = compute_label_log_probs(base, prompts, labels, batch_size)
        for row, prompt in enumerate(prompts):
            for column, label in enumerate(labels):
                logits = base(input_ids=torch.tensor([prompt + label])).logits[0]
                log_probs = logits[len(prompt) - 1 : -1].double().log_softmax(dim=-1)
                alone = log_probs.gather(1, torch.tensor(label)[:, None]).sum()
                torch.testing.assert_close(together[row, column], alone, rtol=0, atol=2e-5)
