"""Target summaries of at most so many words: asked for, asked for once more, then cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainables.data.tasks.wikipedia_pt.writers import Writer
from trainables.metrics.sentences import sentences_of

PROMPT = (
    "Escreva um resumo do texto a seguir em português, em um só parágrafo de no máximo {max_words} "
    "palavras. Use apenas informações do texto e responda somente com o resumo.\n\n{text}"
)
SECOND_PROMPT = (
    "Escreva um resumo muito curto do texto a seguir em português, em um só parágrafo. O limite "
    "de {max_words} palavras é absoluto: um resumo anterior tinha {num_words} e foi recusado. "
    "Responda somente com o resumo.\n\n{text}"
)
MAX_TOKENS_PER_WORD = 4
"""Room of an answer: Portuguese takes about two tokens a word, and a long answer has to show."""


@dataclass(frozen=True)
class Summary:
    """What became of one text."""

    text: str | None
    """None if no summary could be had."""
    is_second: bool = False
    """The first one was too long."""
    is_cut: bool = False
    """The second one was too long as well; its last sentences were left out."""


def summarise(writer: Writer, texts: Sequence[str], max_words: int) -> list[Summary]:
    """A summary of each text, of max_words words at most."""
    max_new_tokens = MAX_TOKENS_PER_WORD * max_words
    first = writer.write(
        [PROMPT.format(text=text, max_words=max_words) for text in texts], max_new_tokens
    )
    long = [i for i, answer in enumerate(first) if answer and num_words(answer) > max_words]
    prompts = [
        SECOND_PROMPT.format(
            text=texts[i], max_words=max_words, num_words=num_words(first[i] or "")
        )
        for i in long
    ]
    second = dict(zip(long, writer.write(prompts, max_new_tokens) if prompts else [], strict=True))
    return [
        _shortened(second[i] or answer, max_words) if i in second else Summary(answer or None)
        for i, answer in enumerate(first)
    ]


def num_words(text: str) -> int:
    """Words, as white space divides them."""
    return len(text.split())


def _shortened(answer: str | None, max_words: int) -> Summary:
    """The answer, without its last sentences if it is too long; none of it if one sentence is."""
    text = answer or ""
    if num_words(text) <= max_words:
        return Summary(text, is_second=True)
    kept: list[str] = []
    for sentence in sentences_of(text, "portuguese"):
        if num_words(" ".join((*kept, sentence))) > max_words:
            break
        kept.append(sentence)
    return Summary(" ".join(kept) or None, is_second=True, is_cut=bool(kept))
