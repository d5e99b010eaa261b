"""The tiny rows and the tiny corpus: reproducible, disjoint, and without each other's sentences."""

import json
import re
from itertools import islice
from random import Random

import pytest

from tests.benchmarks.tiny_makers.corpus import generate_documents
from tests.benchmarks.tiny_makers.grammar import Story, draw_story
from tests.benchmarks.tiny_makers.make_data import NUM_ROWS, SCENARIOS, find_split, make_rows
from tests.benchmarks.tiny_makers.story_rows import Row, format_jsonl
from tests.benchmarks.tiny_makers.words import NAMES
from trainables.tiny import SAMSUM_DIR


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {split: list(map(json.loads, _read_committed(split).splitlines())) for split in NUM_ROWS}


@pytest.mark.parametrize("split", NUM_ROWS)
def test_committed_rows_are_what_the_default_seed_gives(split: str) -> None:
    assert format_jsonl(make_rows(split)) == _read_committed(split)


def test_seed_decides_the_rows() -> None:
    assert make_rows("train", seed=1) == make_rows("train", seed=1)
    assert make_rows("train", seed=1) != make_rows("train", seed=2)


def test_there_are_at_least_a_thousand_rows_and_no_blank_field(rows: dict[str, list[Row]]) -> None:
    everything = [row for split in rows.values() for row in split]
    assert len(everything) == sum(NUM_ROWS.values()) >= 1000
    assert all(text.strip() == text != "" for row in everything for text in row.values())
    assert len({row["id"] for row in everything}) == len(everything)


def test_no_dialogue_is_shared_between_or_within_splits(rows: dict[str, list[Row]]) -> None:
    dialogues = [row["dialogue"] for split in rows.values() for row in split]
    assert len(set(dialogues)) == len(dialogues)


def test_no_summary_or_pair_of_speakers_of_the_other_splits_is_in_train(
    rows: dict[str, list[Row]],
) -> None:
    pairs = {split: {_list_speakers(row) for row in some} for split, some in rows.items()}
    summaries = {split: {row["summary"] for row in some} for split, some in rows.items()}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert pairs[first].isdisjoint(pairs[second])
        assert summaries[first].isdisjoint(summaries[second])


def test_every_dialogue_is_two_people_who_speak_line_by_line(rows: dict[str, list[Row]]) -> None:
    for row in (row for split in rows.values() for row in split):
        assert len(_list_speakers(row)) == 2, row["id"]
        assert all(": " in line for line in row["dialogue"].split("\n")), row["id"]
        assert row["summary"].count(".") in (1, 2), row["id"]


def test_every_name_of_a_summary_stands_in_its_dialogue(rows: dict[str, list[Row]]) -> None:
    for row in (row for split in rows.values() for row in split):
        named = set(re.findall(r"\w+", row["summary"])) & set(NAMES)
        assert named, row["id"]
        assert named <= set(re.findall(r"\w+", row["dialogue"])), row["id"]


def test_every_split_has_every_scenario_and_outcome() -> None:
    rng, found = Random(0), set()
    for _ in range(40_000):
        story = draw_story(rng, SCENARIOS)
        found.add((find_split(story), story.outcome.gist, story.outcome.told))
    outcomes = [part for scenario in SCENARIOS for part in scenario.outcomes]
    assert len(outcomes) > 40
    assert found >= {(split, part.gist, part.told) for part in outcomes for split in NUM_ROWS}


def test_corpus_never_asks_for_a_summary_of_a_dialogue_nor_holds_one() -> None:
    corpus = "\n".join(islice(generate_documents("test"), 2000))
    assert corpus.count("<|im_start|>assistant") > 300
    assert "Continue the following dialogue." in corpus
    assert "Summarize" not in corpus
    rng, num_checked = Random(0), 0
    for _ in range(1000):
        for gist in _list_gists(draw_story(rng, SCENARIOS)):
            num_checked += 1
            assert gist not in corpus
    assert num_checked == 2000


def test_corpus_depends_on_its_seed_alone() -> None:
    assert list(islice(generate_documents("x"), 50)) == list(islice(generate_documents("x"), 50))
    assert list(islice(generate_documents("x"), 50)) != list(islice(generate_documents("y"), 50))


def _read_committed(split: str) -> str:
    return (SAMSUM_DIR / f"{split}.jsonl").read_text("utf-8")


def _list_speakers(row: Row) -> frozenset[str]:
    return frozenset(line.partition(": ")[0] for line in row["dialogue"].split("\n"))


def _list_gists(story: Story) -> list[str]:
    return [text.format(**story.slots) for part in story.parts for text in part.gist.split(" | ")]
