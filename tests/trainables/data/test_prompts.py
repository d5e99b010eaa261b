"""Prompts: named ones, templates of the user's own, and what is refused before any row is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import TaskOptions
from trainables.data.prompts import choose_template
from trainables.data.tasks import TASKS
from trainables.data.tasks.samsum import PROMPTS
from trainables.errors import SweepAborted
from trainables.tiny import SAMSUM_DIR

NAMED = {"short": "Sum: {text}", "long": "Summarise {title}: {text}"}


def choose(prompt: str | None) -> str:
    return choose_template(prompt, NAMED, ("text", "title"), "text")


def test_no_prompt_is_the_first_and_a_name_is_its_template() -> None:
    assert choose(None) == choose("short") == NAMED["short"]
    assert choose("long") == NAMED["long"]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("shorter", r"has no \{text\}"),
        ("{title}", r"has no \{text\}"),
        ("{{text}}", r"has no \{text\}"),
        ("{text} {author}", r"no such column: \{author\}"),
        ("{text.upper} {text}", r"no such column: \{text\.upper\}"),
        ("{text!r} {text}", r"no such column: \{text!r\}"),
        ("{text:>9} {text}", r"no such column: \{text:>9\}"),
        ("{} {text}", r"no such column: \{\}"),
        ("{text", "cannot be read"),
        ("{text} }", "cannot be read"),
    ],
)
def test_prompt_that_cannot_be_filled_is_one_clear_error(prompt: str, error: str) -> None:
    with pytest.raises(SweepAborted, match=error) as told:
        choose(prompt)
    assert "{text}" in told.value.fix


@given(st.text(), st.text())
def test_values_stand_in_the_prompt_as_they_are(text: str, title: str) -> None:
    template = choose("<{title}> {{kept}} {text}")
    assert template.format_map({"text": text, "title": title}) == f"<{title}> {{kept}} {text}"


def test_instruction_prompt_has_its_three_blocks() -> None:
    blocks = [line for line in PROMPTS["instruction"].splitlines() if line.startswith("###")]
    assert blocks == ["### Instruction:", "### Input:", "### Response:"]


@pytest.mark.parametrize("task", ["samsum", "turkish_youtube", "wikipedia_pt"])
def test_options_without_a_use_are_refused_with_their_flags(task: str) -> None:
    with pytest.raises(SweepAborted) as told:
        TASKS[task](TaskOptions(label_names=("0=no",), balance="oversample"))
    assert "--label-names ('0=no',), --balance 'oversample'" in told.value.error
    assert told.value.fix.endswith(
        f"of these options {task} takes --prompt, --augment-copies, --augment-noise, "
        "--paraphrases, --metric, --metric-mode"
    )


@pytest.mark.parametrize("task", ["samsum", "turkish_youtube", "wikipedia_pt"])
def test_bad_prompt_is_told_before_the_data_is_read(task: str) -> None:
    with pytest.raises(SweepAborted, match="the prompt 'nothing' has no"):
        TASKS[task](TaskOptions(prompt="nothing"))


def test_chosen_prompt_is_that_of_every_split() -> None:
    for prompt in ("instruction", "Short, please: {dialogue}"):
        splits = TASKS["samsum"](TaskOptions(prompt=prompt)).load(str(SAMSUM_DIR))
        before = PROMPTS.get(prompt, prompt).partition("{dialogue}")[0]
        assert splits.prompt_template == PROMPTS.get(prompt, prompt)
        rows = (*splits.train, *splits.validation, *splits.test)
        assert rows and all(row.prompt.startswith(before) for row in rows)
