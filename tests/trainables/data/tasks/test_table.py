"""table: one's own rows are read, cleaned, counted, split and asked about, or refused clearly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from trainables.config import Metric, TaskOptions
from trainables.data.rows import Scoring, Splits
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted

LABELLED = TaskOptions(input="text", target="mood", kind="classify")
SUMMED = TaskOptions(input="text", target="sum", kind="summarize")


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a JSON Lines file."""
    pd.DataFrame(list(rows)).to_json(path, orient="records", lines=True)
    return str(path)


def rows(num_rows: int, **more: object) -> list[dict[str, object]]:
    return [
        {"text": f"text {i}", "mood": ("good", "bad")[i % 2], "sum": f"sum {i}"} | more
        for i in range(num_rows)
    ]


def load(data: str, options: TaskOptions) -> Splits:
    return TASKS["table"](options).load(data)


def refusal(data: str | None, options: TaskOptions) -> tuple[str, str]:
    with pytest.raises(SweepAborted) as told:
        TASKS["table"](options).load(data)
    return told.value.error, told.value.fix


def test_one_table_becomes_three_splits_of_prompts_and_labels(tmp_path: Path) -> None:
    splits = load(write(tmp_path / "a.jsonl", rows(100)), LABELLED)
    assert [len(some) for some in (splits.train, splits.validation, splits.test)] == [60, 20, 20]
    assert splits.scoring == Scoring(kind="classify", language="english", labels=("bad", "good"))
    row = splits.train[0]
    assert row.prompt.startswith(
        "Classify the following text. Answer with one of: bad, good.\n\nte"
    )
    assert row.target in ("bad", "good")
    assert "a.jsonl: 100 rows" in splits.notes
    assert "test: bad 10, good 10" in splits.notes


def test_summaries_are_asked_for_in_the_language_of_the_targets(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", rows(30))
    splits = load(data, replace(SUMMED, language="portuguese"))
    assert splits.scoring == Scoring(kind="summarize", language="portuguese")
    assert splits.train[0].prompt == "Resuma o texto a seguir.\n\ntext 0"
    assert splits.train[0].target == "sum 0"


def test_bad_rows_are_counted_by_their_reason(tmp_path: Path) -> None:
    bad = [
        {"text": " ", "mood": "good"},
        {"text": "x"},
        {"text": ["x"], "mood": "bad"},
        {"text": "text 2", "mood": "good"},
        {"text": "text  4", "mood": "bad"},
    ]
    splits = load(write(tmp_path / "a.jsonl", [*rows(100), *bad]), LABELLED)
    assert {name: n for name, n in splits.counts.items() if n} == {
        "table blank input": 1,
        "table no target": 1,
        "table not text": 1,
        "table duplicates": 1,
        "table contradictory": 2,
        "train": 61,
        "validation": 19,
        "test": 19,
    }


def test_given_splits_keep_what_a_later_one_lacks(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [*rows(20), *rows(3)])
    write(tmp_path / "valid.jsonl", rows(30)[18:24])
    write(tmp_path / "test.jsonl", rows(30)[22:28])
    splits = load(str(tmp_path), SUMMED)
    assert {name: n for name, n in splits.counts.items() if n} == {
        "train also in validation": 2,
        "validation also in test": 2,
        "train duplicates": 3,
        "train": 18,
        "validation": 4,
        "test": 6,
    }
    assert not any("split by content" in note for note in splits.notes)


@pytest.mark.parametrize("options", [LABELLED, SUMMED])
def test_training_rows_that_all_stand_in_test_are_told(
    options: TaskOptions, tmp_path: Path
) -> None:
    for name, some in (("train", rows(30)), ("valid", rows(40)[30:]), ("test", rows(30))):
        write(tmp_path / f"{name}.jsonl", some)
    error, fix = refusal(str(tmp_path), options)
    assert error == "the train split of table has no usable row: train also in test 30"
    assert "that no later split holds" in fix


def test_splits_that_lack_are_taken_from_train(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(50))
    write(tmp_path / "test.jsonl", rows(56)[50:])
    splits = load(str(tmp_path), LABELLED)
    assert [len(some) for some in (splits.train, splits.validation, splits.test)] == [40, 10, 6]


def test_label_that_train_lacks_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(50))
    write(tmp_path / "test.jsonl", [{"text": "new", "mood": "angry", "sum": ""}])
    assert "'angry', which no training row has" in refusal(str(tmp_path), LABELLED)[0]


def test_prompt_may_name_any_column_and_decides_what_is_a_copy(tmp_path: Path) -> None:
    pairs = [
        row | {"extra note": f"note {i % 2}", "text": f"text {i // 2}"}
        for i, row in enumerate(rows(60))
    ]
    data = write(tmp_path / "a.jsonl", pairs)
    splits = load(data, replace(LABELLED, prompt="{text} with {extra note} {{x}}?"))
    prompts = [[r.prompt for r in s] for s in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, prompts)) == 60
    assert "text 0 with note 0 {x}?" in [prompt for some in prompts for prompt in some]
    inputs = [{prompt.partition(" with")[0] for prompt in some} for some in prompts]
    assert not inputs[0] & inputs[1] and not inputs[0] & inputs[2] and not inputs[1] & inputs[2]
    assert (
        load(data, replace(LABELLED, kind="summarize", target="sum")).counts["table duplicates"]
        == 30
    )


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("{text} {nothing}", "no such column: {nothing}"),
        ("{text", "cannot be read"),
        ("{mood}", "has no {text}"),
        ("hello", "has no {text}"),
        ("{} {text}", "no such column: {}"),
    ],
)
def test_prompt_that_cannot_be_filled_is_refused(prompt: str, error: str, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", rows(30))
    assert error in refusal(data, replace(LABELLED, prompt=prompt))[0]


def test_braces_and_labels_stand_as_they_are(tmp_path: Path) -> None:
    odd = [
        row | {"text": f"{{text}} {i}", "mood": f"{{{row['mood']}}}"}
        for i, row in enumerate(rows(30))
    ]
    splits = load(write(tmp_path / "a.jsonl", odd), LABELLED)
    assert splits.scoring.labels == ("{bad}", "{good}")
    assert splits.train[0].prompt.endswith("one of: {bad}, {good}.\n\n{text} 0")


@pytest.mark.parametrize(
    ("options", "lacking", "fix"),
    [
        (TaskOptions(), "--input, --target, --kind", "--input text --target mood --kind classify"),
        (TaskOptions(input="text", target="sum"), "needs --kind;", "--target sum --kind summarize"),
        (TaskOptions(input="sum", kind="classify"), "needs --target;", "--input sum --target mood"),
    ],
)
def test_options_that_lack_are_suggested_from_the_columns(
    options: TaskOptions, lacking: str, fix: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "a.jsonl", [{**row, "text": f"{row['text']} long"} for row in rows(60)])
    error, told = refusal(data, options)
    assert lacking in error
    assert "text (60 different values), mood (2 different values), sum (60" in error
    assert fix in told


def test_unknown_column_names_those_found_and_the_nearest(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", rows(30, **{"my note": "n"}))
    error, fix = refusal(data, replace(LABELLED, target="my notes"))
    assert "no column 'my notes'; found text (30" in error
    assert fix == "did you mean 'my note'?"
    assert refusal(data, replace(LABELLED, input="zzz"))[1].startswith("try --input ")
    assert "both name 'mood'" in refusal(data, replace(LABELLED, input="mood"))[0]


def test_split_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(30))
    write(tmp_path / "test.jsonl", [{"text": "x", "label": "good"}])
    assert "test has no column 'mood'; found text, label" in refusal(str(tmp_path), LABELLED)[0]


@pytest.mark.parametrize("name", ["reviews.text", "Review: text", "0", "Unnamed: 2", "{a}", "a!b"])
def test_column_of_any_name_is_read_and_refused_only_by_a_prompt(name: str, tmp_path: Path) -> None:
    cells = [{name: f"t {i}", "mood": i % 2, "input": "other"} for i in range(30)]
    options = replace(LABELLED, input=name)
    splits = load(write(tmp_path / "a.jsonl", cells), options)
    assert splits.prompt_template.endswith("one of: 0, 1.\n\n{input}")
    assert {row.prompt.split("\n\n")[1] for row in splits.train} <= {f"t {i}" for i in range(30)}
    del cells[0]["input"]
    data = write(tmp_path / "b.jsonl", [{name: r[name], "mood": r["mood"]} for r in cells])
    assert load(data, replace(options, prompt="Mood of {input}?")).train[0].prompt.endswith("?")
    error, fix = refusal(data, replace(options, prompt=f"Mood of {{{name}}}?"))
    assert "{input}" in error + fix


def test_test_file_without_labels_is_said_to_be_one_to_predict(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [*rows(60), {"text": "y", "mood": None}])
    for lacking in ({"text": "x"}, {"text": "x", "mood": -1}, {"text": "x", "mood": None}):
        write(tmp_path / "test.jsonl", [lacking] * 3)
        splits = load(str(tmp_path), LABELLED)
        assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [36, 12, 12]
        told = [
            note
            for note in splits.notes
            if note.startswith("the test rows (test.jsonl) have no mood")
        ]
        assert len(told) == 1 and "python -m sweeps.predict" in told[0]


def test_cells_of_several_labels_are_told(tmp_path: Path) -> None:
    topics = ["art, war", "art", "war", "war, art, sea", "sea"]
    joined = [row | {"mood": topics[i % 5]} for i, row in enumerate(rows(60))]
    notes = load(write(tmp_path / "a.jsonl", joined), LABELLED).notes
    assert any("several labels in a cell, e.g. 'art, war'" in note for note in notes)
    notes = load(write(tmp_path / "b.jsonl", rows(30)), LABELLED).notes
    assert not any("several labels" in note for note in notes)
    lists = [row | {"mood": ["art", "war"]} for row in rows(60)]
    error, _ = refusal(write(tmp_path / "c.jsonl", lists), LABELLED)
    assert error.endswith("table several labels 60")


def test_labels_beyond_fifty_are_not_listed_in_the_question(tmp_path: Path) -> None:
    many = [row | {"mood": f"label {i % 60}"} for i, row in enumerate(rows(600))]
    splits = load(write(tmp_path / "a.jsonl", many), LABELLED)
    assert len(splits.scoring.labels) == 60
    assert splits.prompt_template == (
        "Classify the following text. Answer with its label alone.\n\n{text}"
    )
    assert "train: 60 labels of 8 to 8 rows" in splits.notes


@pytest.mark.parametrize("option", [{"label_names": ("0=a",)}, {"balance": "oversample"}])
def test_options_of_labels_are_refused_for_texts(option: dict[str, object]) -> None:
    with pytest.raises(SweepAborted, match="has no use for --"):
        TASKS["table"](replace(SUMMED, **option))  # type: ignore[arg-type]


def test_metric_follows_the_kind() -> None:
    chosen = [replace(LABELLED, metric="macro_f1"), replace(SUMMED, metric="chrf,bleu")]
    metrics = [TASKS["table"](options).metric for options in (SUMMED, LABELLED, *chosen)]
    assert metrics == [Metric(name=name) for name in ("rougeLsum", "accuracy", "macro_f1", "chrf")]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_refuses_what_is_no_metric(task: str) -> None:
    with pytest.raises(SweepAborted, match="--metric rougel is no metric"):
        TASKS[task](TaskOptions(metric="rougel"))
    assert TASKS[task](TaskOptions(metric="eval_loss")).metric.mode == "min"


def test_data_must_be_named_and_there(tmp_path: Path) -> None:
    assert "no dataset of its own" in refusal(None, LABELLED)[0]
    assert "does not exist" in refusal(str(tmp_path / "nowhere.csv"), LABELLED)[0]


def test_table_without_a_usable_row_says_what_is_wrong_with_all(tmp_path: Path) -> None:
    odd = [{"text": {"a": 1}, "mood": "good"}, {"text": "half \ud800", "mood": "bad"}, {"text": ""}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in odd))
    error, fix = refusal(str(path), LABELLED)
    assert error.endswith("rows can be used by text, mood: table not text 2, table blank input 1")
    assert "--input" in fix


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    more = [{"text": "half \ud800 of it", "mood": "good"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(50), *more]))
    assert load(str(path), LABELLED).counts["table not text"] == 1


def test_address_is_told_to_be_downloaded() -> None:
    error, fix = refusal("https://example.org/rows.csv", LABELLED)
    assert "--data https://example.org/rows.csv does not exist" in error
    assert "download it" in fix


def test_column_that_is_there_twice_is_refused_only_if_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"text {i},note,{('good', 'bad')[i % 2]},more" for i in range(40)]
    path.write_text("\n".join(['text,note,"mood",note', *lines]))
    assert len(load(str(path), LABELLED).train) == 24
    error, fix = refusal(str(path), replace(LABELLED, input="note"))
    assert "two columns 'note'" in error and "rename" in fix


def test_sheet_is_chosen_by_its_name_and_refused_where_there_is_none(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        pd.DataFrame({"read": ["me"]}).to_excel(book, sheet_name="about", index=False)
        pd.DataFrame(rows(40)).to_excel(book, sheet_name="rows 2024", index=False)
    named = replace(LABELLED, sheet="rows 2024")
    splits = load(str(tmp_path / "a.xlsx"), named)
    assert splits.notes[0] == "a.xlsx: 40 rows, sheet rows 2024"
    error, _ = refusal(str(tmp_path / "a.xlsx"), replace(LABELLED, sheet="about"))
    assert "no column 'text', 'mood'; found read" in error
    found = load(str(tmp_path / "a.xlsx"), LABELLED)
    assert found.notes[0] == (
        "a.xlsx: 40 rows, sheet rows 2024, the first table of 2 (--sheet names another)"
    )
    assert refusal("owner/name", named)[0] == "the dataset owner/name has no sheets"
    with pytest.raises(SweepAborted, match="no use for --sheet 'rows 2024'"):
        TASKS["samsum"](TaskOptions(sheet="rows 2024"))


def test_rows_that_differ_in_what_the_prompt_leaves_out_are_no_copies(tmp_path: Path) -> None:
    alpaca = [
        {"instruction": f"Do task {n % 30}", "input": f"n{n}" * (n > 9), "output": f"answer {n}"}
        for n in range(60)
    ]
    options = TaskOptions(input="instruction", target="output", kind="generate")
    data = write(tmp_path / "a.jsonl", [*alpaca, alpaca[50], alpaca[50]])
    splits = load(data, options)
    assert splits.counts["table duplicates"] == 2
    assert sum(splits.counts[name] for name in ("train", "validation", "test")) == 60
    (note,) = [note for note in splits.notes if "does not use" in note]
    assert note.startswith("columns of text that the prompt does not use: input: --prompt")
    parts = [
        {row.prompt for row in some} for some in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30  # none in two splits
    both = load(data, replace(options, prompt="{instruction} {input}"))
    assert both.counts["table duplicates"] == 2
    assert not [note for note in both.notes if "does not use" in note]


def test_between_given_splits_the_prompt_alone_tells_copies(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("validation", 50), ("test", 80)):
        some = [{"text": f"text {number + n}", "mood": ("good", "bad")[n % 2]} for n in range(20)]
        write(tmp_path / f"{split}.jsonl", [row | {"context": f"of {split}"} for row in some])
    write(
        tmp_path / "train.jsonl",
        [r | {"context": f"seen {r['text']}"} for r in [*rows(20), rows(81)[80]]],
    )
    splits = load(str(tmp_path), LABELLED)
    assert splits.counts["train also in test"] == 1 and splits.counts["train"] == 20


def test_only_columns_that_a_model_could_read_are_said_to_be_unused(tmp_path: Path) -> None:
    more = {
        "title": [f"A title of number {n}" for n in range(40)],
        "created_date": [f"on day {n} of May" for n in range(40)],
        "author": [f"Ann Smith {'' if n % 3 else 'Lee'}" for n in range(40)],
        "stars": list(range(40)),
        "source": ["one and the same"] * 40,
        "tags": [["a b c", "d"]] * 40,
    }
    given = [row | {name: some[n] for name, some in more.items()} for n, row in enumerate(rows(40))]
    notes = load(write(tmp_path / "a.jsonl", given), LABELLED).notes
    (note,) = [note for note in notes if "does not use" in note]
    assert ": title: --prompt" in note
