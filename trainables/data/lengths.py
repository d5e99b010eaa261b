"""Rows that are left out or cut for their length, found and told before any GPU is used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trainables.config import TrainingOptions
from trainables.data.rows import Splits
from trainables.data.tokens import Example, compute_prompt_limit, encode_rows, fit_training_rows
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
    limit = compute_prompt_limit(options.max_length_tokens, options.max_new_tokens)
    scored = {
        split: encode_rows(tokenizer, rows, limit, thinking=options.thinking)
        for split, rows in (("validation", splits.validation), ("test", splits.test))
    }
    trained = [example for example in fitted if example is not None]
    train = tuple(row for row, example in zip(splits.train, fitted, strict=True) if example)
    left_out = len(fitted) - len(trained)
    notes = [
        _note_rows(
            f"prompts cut to {limit} tokens",
            "--max-length-tokens",
            {"train": trained, **scored},
            lambda example: example.is_cut,
        ),
        _note_rows(
            f"prompts scored that are longer than {limit} tokens, by the words around their text "
            "alone",
            "--max-length-tokens",
            scored,
            lambda example: example.num_prompt_tokens > limit,
        ),
    ]
    room = options.max_new_tokens
    if splits.scoring.kind != "classify":
        notes.append(
            _note_rows(
                f"targets longer than the {room} tokens that an answer may have",
                "--max-new-tokens",
                scored,
                lambda example: len(example.ids) - example.num_prompt_tokens > room,
            )
        )
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


def _note_rows(
    what: str,
    flag: str,
    examples: Mapping[str, Sequence[Example]],
    is_noted: Callable[[Example], bool],
) -> str:
    """How many rows of each split what is said of holds; "" if it holds of none."""
    counts = {split: sum(map(is_noted, some)) for split, some in examples.items()}
    shares = [f"{s} {n:,} of {len(examples[s]):,}" for s, n in counts.items() if n]
    return f"{what}: {', '.join(shares)}: {flag}" if shares else ""
