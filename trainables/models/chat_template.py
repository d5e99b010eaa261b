"""What a model's chat template writes around messages, and the tokens that end an answer."""

from collections.abc import Sequence
from typing import Any, Protocol

from trainables.errors import SweepAborted

END_OF_TURN = "<|im_end|>"
"""What Qwen's chat template writes after an answer; Qwen base tokenizers name another eos."""
BEGIN_THOUGHT = "<think>"
"""What stands before a thought."""


class ChatTokenizer(Protocol):
    """What rows need of a tokenizer: transformers' has it, and so has tokenizer_file's."""

    @property
    def name_or_path(self) -> Any:
        """The model's."""

    @property
    def eos_token_id(self) -> Any:
        """Token that ends a text."""

    @property
    def pad_token_id(self) -> Any:
        """Token that fills rows up; it is always masked."""

    @property
    def unk_token_id(self) -> Any:
        """Token of what the vocabulary lacks; None if it lacks nothing."""

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> Any:
        """{"input_ids": the tokens of each text}."""

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """The token of that name."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as the model's template writes it."""


def render_template(
    tokenizer: ChatTokenizer, roles: Sequence[str], *, thinking: bool = False
) -> list[str]:
    """What the chat template writes around messages of these roles: before each, and at the end,
    up to where the assistant begins to answer.

    Rendering it once a pattern of roles instead of for every row is minutes on a large dataset.

    Raises:
        SweepAborted: it does not write every message once, in order and as it stands.
    """
    contents = [f"Message {index:04} of a conversation." for index in range(len(roles))]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    fix = "choose a Qwen model with the chat template of its makers, e.g. Qwen/Qwen3-0.6B"
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    except SweepAborted:
        raise
    except Exception as refused:  # a template is a program, and raises what it likes
        raise SweepAborted(
            f"the chat template of {tokenizer.name_or_path} cannot write turns of "
            f"{', '.join(roles)}: {refused}",
            fix,
        ) from None
    pieces = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found or content in text:
            raise SweepAborted(
                f"the chat template of {tokenizer.name_or_path} does not write every message once, "
                "as it stands",
                fix,
            )
        pieces.append(before)
    return [*pieces, text]


def has_open_thought(tokenizer: ChatTokenizer, *, thinking: bool) -> bool:
    """Whether prompts end in a thought that has begun, as Qwen3.5's that think and those of Qwen's
    Thinking models do.

    Raises:
        SweepAborted: the chat template cannot write a question.
    """
    end = render_template(tokenizer, ("user",), thinking=thinking)[-1]
    return end.rstrip().endswith(BEGIN_THOUGHT)


def find_end_of_turn_id(tokenizer: ChatTokenizer) -> int:
    """Token that ends an answer.

    Raises:
        SweepAborted: there is none.
    """
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)  # its whole vocabulary takes 5 ms
    is_known = end is not None and end != tokenizer.unk_token_id
    end = end if is_known else tokenizer.eos_token_id
    if end is None:
        raise SweepAborted(
            f"the tokenizer of {tokenizer.name_or_path} has no token that ends an answer: neither "
            f"{END_OF_TURN} nor an eos_token",
            "name one as eos_token in its tokenizer_config.json, or choose another model",
        )
    return int(end)


def list_stop_ids(tokenizer: ChatTokenizer) -> list[int]:
    """Tokens that end an answer: the end of turn, then the tokenizer's own end of text."""
    ends = dict.fromkeys((find_end_of_turn_id(tokenizer), tokenizer.eos_token_id))
    return [end for end in ends if end is not None]


def make_greedy_config(tokenizer: ChatTokenizer, max_new_tokens: int) -> dict[str, object]:
    """How answers are generated, as transformers' GenerationConfig has it."""
    return {
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "max_new_tokens": max_new_tokens,
        "eos_token_id": list_stop_ids(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
