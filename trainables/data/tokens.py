"""Rows as tokens: the same prompt in training and in evaluation, and labels on the target alone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from trainables.data.rows import Row
from trainables.errors import SweepAborted

IGNORED = -100
"""Label of a token that no loss counts (torch.nn.functional.cross_entropy's ignore_index)."""
END_OF_TURN = "<|im_end|>"
"""What Qwen's chat template writes after an answer; Qwen base tokenizers name another eos."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One row as tokens."""

    prompt_ids: list[int]
    """Generation prompt: what the model is given when it is evaluated."""
    target_ids: list[int]
    """Answer with its end of turn: what it is trained to say."""

    @cached_property
    def input_ids(self) -> list[int]:
        """Prompt and target."""
        return self.prompt_ids + self.target_ids

    @cached_property
    def tokens(self) -> np.ndarray:
        """input_ids as int32, kept because a pack lays thousands of rows together every second."""
        return np.array(self.input_ids, dtype=np.int32)

    @cached_property
    def labels(self) -> list[int]:
        """As long as input_ids: IGNORED over the prompt, then the target."""
        return [IGNORED] * len(self.prompt_ids) + self.target_ids


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token that ends an answer."""
    found = tokenizer.convert_tokens_to_ids(END_OF_TURN)  # its whole vocabulary takes 5 ms
    is_known = found is not None and found != tokenizer.unk_token_id
    return int(found if is_known else tokenizer.eos_token_id)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the end of turn, and the tokenizer's own end of text."""
    return sorted({end_of_turn_id(tokenizer), tokenizer.eos_token_id})


def until_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens before the first stop."""
    end = next((index for index, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def prompt_limit(max_length_tokens: int, max_new_tokens: int) -> int:
    """Most tokens of a prompt.

    Room for an answer is set aside whatever the row's target is, so that a row's prompt is cut
    alike in training and in evaluation; never more than half of the length.
    """
    return max(max_length_tokens - max_new_tokens, max_length_tokens // 2)


def encode_training_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    max_length_tokens: int,
    max_new_tokens: int,
) -> list[Example]:
    """The rows as examples of at most max_length_tokens tokens.

    Targets are never cut: a row whose target is longer than the room set aside for it loses more
    of its prompt, and is left out, with a warning, if its target leaves no room for the prompt.

    Raises:
        SweepAborted: no row is left.
    """
    limit = prompt_limit(max_length_tokens, max_new_tokens)
    targets = encode_targets(tokenizer, [row.target for row in rows])
    limits = [min(limit, max_length_tokens - len(target_ids)) for target_ids in targets]
    prompts = _encode_prompts(tokenizer, [row.prompt for row in rows], limits)
    examples = [
        Example(prompt_ids, target_ids)
        for prompt_ids, target_ids in zip(prompts, targets, strict=True)
        if len(prompt_ids) + len(target_ids) <= max_length_tokens
    ]
    if len(examples) < len(rows):
        left_out = len(rows) - len(examples)
        logger.warning("%d rows left out: longer than %d tokens", left_out, max_length_tokens)
    if not examples:
        raise SweepAborted(
            f"no training row fits in {max_length_tokens} tokens with its whole target",
            f"raise --max-length-tokens: the shortest target alone has {min(map(len, targets))}",
        )
    return examples


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    prompt_limit_tokens: int,
    *,
    thinking: bool = False,
) -> list[Example]:
    """Every row as an example for evaluation, its target in full.

    Args:
        thinking: let the model think before it answers; training rows never do.
    """
    limits = [prompt_limit_tokens] * len(rows)
    prompts = _encode_prompts(tokenizer, [row.prompt for row in rows], limits, thinking)
    targets = encode_targets(tokenizer, [row.target for row in rows])
    return [Example(*pair) for pair in zip(prompts, targets, strict=True)]


def encode_targets(tokenizer: PreTrainedTokenizerBase, targets: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer and of its end."""
    end = end_of_turn_id(tokenizer)
    return [[*ids, end] for ids in _ids(tokenizer, targets)]


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], limit: int
) -> list[list[int]]:
    """Tokens of the chat template up to where the assistant begins to answer.

    A prompt above limit loses the end of the user's message; the template around it stays, even
    where it alone is above limit.
    """
    return _encode_prompts(tokenizer, prompts, [limit] * len(prompts))


def _encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    limits: Sequence[int],
    thinking: bool = False,
) -> list[list[int]]:
    before, after = _template_around(tokenizer, thinking)
    whole = _ids(tokenizer, [before + prompt + after for prompt in prompts])
    before_ids, after_ids = _ids(tokenizer, [before, after])
    encoded = []
    for prompt, ids, limit in zip(prompts, whole, limits, strict=True):
        if len(ids) > limit:
            room = max(limit - len(before_ids) - len(after_ids), 0)
            ids = before_ids + _ids(tokenizer, [prompt])[0][:room] + after_ids
        encoded.append(ids)
    return encoded


def _template_around(tokenizer: PreTrainedTokenizerBase, thinking: bool) -> tuple[str, str]:
    """What the chat template writes before and after a user's message.

    Rendering the template once instead of for every row is minutes on a large dataset.
    """
    message = "a user's message"
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    before, after = text.split(message)
    return before, after


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids
