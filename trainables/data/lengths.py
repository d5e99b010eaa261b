"""Rows that are left out or cut for their length, found and told before any GPU is used."""

from dataclasses import replace

from trainables.config import TrainingOptions
from trainables.data.rows import Splits
from trainables.data.tokens import Example, encode_rows, fit_training_rows, prompt_limit
from trainables.models.chat_template import ChatTokenizer


def fit_splits(tokenizer: ChatTokenizer, splits: Splits, options: TrainingOptions) -> Splits:
    """The splits without the training rows that do not fit, with counts and notes of what is cut.

    Raises:
        SweepAborted: no training row fits, or the chat template cannot hold the rows' turns.
    """
    fitted = fit_training_rows(
        tokenizer,
        splits.train,
        options.max_length_tokens,
        options.max_new_tokens,
        thinking=options.thinking,
    )
    limit = prompt_limit(options.max_length_tokens, options.max_new_tokens)
    scored = {
        split: encode_rows(tokenizer, rows, limit, thinking=options.thinking)
        for split, rows in (("validation", splits.validation), ("test", splits.test))
    }
    trained = [example for example in fitted if example is not None]
    train = tuple(row for row, example in zip(splits.train, fitted, strict=True) if example)
    left_out = len(fitted) - len(trained)
    notes = [
        _note_cut_prompts({"train": trained, **scored}, options),
        _note_long_prompts(scored, options),
    ]
    if splits.scoring.kind != "classify":
        notes.append(_note_long_targets(scored, options))
    if left_out:
        notes.append(
            f"left out of train: {left_out:,} of {len(fitted):,} rows, whose target and the words "
            f"around their text are above {options.max_length_tokens} tokens: --max-length-tokens"
        )
    if len(train) < options.batch_size:
        notes.append(
            f"every step repeats rows: it has {options.batch_size:,}, and train {len(train):,}: "
            "--batch-size"
        )
    return replace(
        splits,
        train=train,
        counts=splits.counts | {"train": len(train), "train too long": left_out},
        notes=(*splits.notes, *(note for note in notes if note)),
    )


def _note_cut_prompts(examples: dict[str, list[Example]], options: TrainingOptions) -> str:
    """How many prompts of each split have lost something; "" if none has."""
    limit = prompt_limit(options.max_length_tokens, options.max_new_tokens)
    cut = {split: sum(e.is_cut for e in some) for split, some in examples.items()}
    if not any(cut.values()):
        return ""
    return f"prompts cut to {limit} tokens: {_shares(cut, examples)}: --max-length-tokens"


def _note_long_prompts(examples: dict[str, list[Example]], options: TrainingOptions) -> str:
    """How many prompts of each split are scored although cutting leaves them too long."""
    limit = prompt_limit(options.max_length_tokens, options.max_new_tokens)
    longer = {s: sum(e.num_prompt_tokens > limit for e in some) for s, some in examples.items()}
    if not any(longer.values()):
        return ""
    return (
        f"prompts scored that are longer than {limit} tokens, by the words around their text "
        f"alone: {_shares(longer, examples)}: --max-length-tokens"
    )


def _note_long_targets(examples: dict[str, list[Example]], options: TrainingOptions) -> str:
    """How many targets no generated answer can be as long as; "" if none."""
    room = options.max_new_tokens
    longer = {
        s: sum(len(e.ids) - e.num_prompt_tokens > room for e in some)
        for s, some in examples.items()
    }
    if not any(longer.values()):
        return ""
    return (
        f"targets longer than the {room} tokens that an answer may have: "
        f"{_shares(longer, examples)}: --max-new-tokens"
    )


def _shares(counts: dict[str, int], of: dict[str, list[Example]]) -> str:
    return ", ".join(f"{split} {n:,} of {len(of[split]):,}" for split, n in counts.items() if n)
