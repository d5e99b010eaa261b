"""The text that the tiny model is pretrained on: dialogues retold, questioned and continued.

It teaches reading and copying of names, things, places and times. No document answers a request
to summarise and none holds a summary's sentences: that is left for finetuning to teach.
"""

from collections.abc import Iterator
from random import Random

from tests.benchmarks.tiny_makers.grammar import Story, draw_story, fill_sentence
from tests.benchmarks.tiny_makers.make_data import SCENARIOS, draw_dialogue
from tests.benchmarks.tiny_makers.words import NAMES

_QUESTIONS = {
    "place": "Where? | Which place was it?",
    "day": "Which day? | When is that?",
    "time": "What time? | When exactly?",
    "reason": "Why not? | What is the reason?",
    "item": "What thing is it about? | Which thing?",
    "price": "How much? | What does it cost?",
    "city": "Which city? | What city is it?",
    "food": "What food? | What is there to eat?",
    "gift": "Which present? | What do they give?",
    "job": "Which job? | What work is it?",
    "machine": "What is broken? | Which machine?",
    "pet": "Which animal? | What pet is it?",
    "subject": "Which subject?",
    "course": "What kind of course?",
    "activity": "What do they want to do?",
    "c": "Who else is in it? | Which friend is it?",
}
_CHATTER = (
    ("How are you?", "I am fine, thank you. | Very well, and you?"),
    ("What is your name? | Who are you?", "I am a tiny model. | I have no name."),
    ("Tell me something nice. | Say something.", "The sun is shining. | You are welcome here."),
    ("Thank you! | Thanks.", "You're welcome. | No problem."),
    ("Good morning! | Hello!", "Hello! | Good morning to you."),
)


def generate_documents(seed: str) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = Random(f"corpus-{seed}")
    kinds = (_draw_plain, _retell, _question, _narrate, _continue, _chat)
    while True:
        (kind,) = rng.choices(kinds, weights=(20, 35, 20, 7, 15, 3))
        yield kind(rng)


def render_chat(request: str, answer: str) -> str:
    """One request and its answer, as the model's chat template renders them."""
    return (
        f"<|im_start|>user\n{request}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n\n</think>\n\n{answer}<|im_end|>\n"
    )


def _draw_plain(rng: Random) -> str:
    return draw_dialogue(rng, draw_story(rng, SCENARIOS))


def _retell(rng: Random) -> str:
    """A dialogue, then two others who talk about it."""
    story = draw_story(rng, SCENARIOS)
    asker, teller = _draw_strangers(rng, story)
    first, second = (fill_sentence(rng, part.told, story.slots) for part in story.parts)
    prompts = "What did {a} and {b} say? | Any news from {a}? | What's up with {a} and {b}?"
    lines: tuple[str, ...] = (
        f"{asker}: {fill_sentence(rng, prompts, story.slots)}",
        f"{teller}: {first}.",
        f"{asker}: {fill_sentence(rng, 'And then? | What else? | Go on. | And?', {})}",
        f"{teller}: {second}.",
    )
    if rng.random() < 0.5:
        lines = (lines[0], f"{teller}: {first}. {second}.")
    return draw_dialogue(rng, story) + "\n\n" + "\n".join(lines)


def _question(rng: Random) -> str:
    """A dialogue, then two others who ask and answer what it says."""
    story = draw_story(rng, SCENARIOS)
    asker, teller = _draw_strangers(rng, story)
    pairs = _list_questions(rng, story)
    lines = [
        line
        for question, answer in rng.sample(pairs, min(len(pairs), 3))
        for line in (f"{asker}: {question}", f"{teller}: {answer[0].upper() + answer[1:]}.")
    ]
    return draw_dialogue(rng, story) + "\n\n" + "\n".join(lines)


def _list_questions(rng: Random, story: Story) -> list[tuple[str, str]]:
    """Questions with one answer each: who talks, who says what, and each slot used once."""
    slots = story.slots
    said = [line.partition(": ") for part in story.parts for line in part.lines]
    text = " ".join(wordings for _, _, wordings in said)
    pairs = [
        (fill_sentence(rng, question, {}), slots[kind])
        for kind, question in _QUESTIONS.items()
        if f"{{{kind}}}" in text and f"{{{kind}2}}" not in text
    ]
    a, b = slots["a"], slots["b"]
    pairs.append((f"Who talked to {a}?", b))
    pairs.append(("Who talked about it?", f"{a} and {b}"))
    pairs.append((f"Who else but {b}?", a))
    return pairs


def _narrate(rng: Random) -> str:
    """Some stories told one after the other, without their dialogues."""
    return "\n".join(
        " ".join(fill_sentence(rng, part.told, story.slots) + "." for part in story.parts)
        for story in (draw_story(rng, SCENARIOS) for _ in range(rng.randint(2, 4)))
    )


def _continue(rng: Random) -> str:
    """A request to continue a dialogue, and the rest of it as the answer."""
    lines = _draw_plain(rng).split("\n")
    cut = rng.randint(1, len(lines) - 1)
    request = "Continue the following dialogue.\n\n" + "\n".join(lines[:cut])
    return render_chat(request, "\n".join(lines[cut:]))


def _chat(rng: Random) -> str:
    request, answer = rng.choice(_CHATTER)
    return render_chat(fill_sentence(rng, request, {}), fill_sentence(rng, answer, {}))


def _draw_strangers(rng: Random, story: Story) -> list[str]:
    return rng.sample([name for name in NAMES if name not in story.slots.values()], 2)
