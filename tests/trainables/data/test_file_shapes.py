"""Files as people have them: each is read as its owner meant, with one flag beyond the hint.

Every shape is written here from rows that are known; what is read is compared with those rows.
"""

import bz2
import csv
import gzip
import io
import json
import shlex
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from sweeps.checks.run_args import read_command
from tests.sweeps.commands import call, world
from trainables.data.tasks import TASKS

Pair = tuple[str, str]
REVIEWS = [
    (f"The harbour hotel, room {i}, was {('lovely', 'dreadful')[i % 2]}.", ("good", "bad")[i % 2])
    for i in range(60)
]
REPORTS = [
    (f"Report {i}: {i} ships came in, and {i + 1} left again.", f"{i} in, {i + 1} out")
    for i in range(60)
]
SPLITS = {"train": slice(0, 40), "validation": slice(40, 50), "test": slice(50, 60)}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Files, and what their owner takes them for."""

    data: Sequence[Path]
    rows: Mapping[str, Sequence[Pair]]
    """What is asked and answered in each split; "" is to be split."""
    flags: Sequence[str] = ()
    """The one flag beyond the hint."""


def by_split(pairs: Sequence[Pair]) -> dict[str, Sequence[Pair]]:
    return {split: pairs[part] for split, part in SPLITS.items()}


def records(
    pairs: Sequence[Pair], text: str = "text", label: str = "label"
) -> list[dict[str, str]]:
    return [{text: a, label: b} for a, b in pairs]


def frame(pairs: Sequence[Pair], text: str = "text", label: str = "label") -> pd.DataFrame:
    return pd.DataFrame(records(pairs, text, label))


def lines(pairs: Sequence[Pair], text: str = "text", label: str = "label") -> str:
    return "".join(json.dumps(record) + "\n" for record in records(pairs, text, label))


def csv_text(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def table(pairs: Sequence[Pair]) -> str:
    return csv_text([("text", "label"), *pairs])


def hub_parquet(folder: Path) -> Shape:
    (folder / "data").mkdir()
    for split, pairs in by_split(REVIEWS).items():
        frame(pairs).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("# Reviews")
    (folder / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    return Shape(data=[folder], rows=by_split(REVIEWS))


def hub_shards_with_class_names(folder: Path) -> Shape:
    features = {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}, "text": {}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / "plain_text").mkdir()
    for part in range(3):
        pairs = REVIEWS[part * 20 : part * 20 + 20]
        labels = [int(label == "good") for _, label in pairs]
        columns = pa.table({"text": [text for text, _ in pairs], "label": labels})
        path = folder / "plain_text" / f"train-0000{part}-of-00003.parquet"
        parquet.write_table(columns.replace_schema_metadata(metadata), path)
    return Shape(data=[folder], rows={"": REVIEWS})


def folders_of_splits(folder: Path) -> Shape:
    for split, pairs in by_split(REPORTS).items():
        (folder / split).mkdir()
        half = len(pairs) // 2
        for name, some in (("ports", pairs[:half]), ("rivers", pairs[half:])):
            (folder / split / f"{name}.jsonl").write_text(lines(some, "document", "summary"))
    return Shape(data=[folder], rows=by_split(REPORTS))


def saved_to_disk(folder: Path) -> Shape:
    for split, pairs in by_split(REVIEWS).items():
        (folder / split).mkdir()
        columns = pa.Table.from_pandas(frame(pairs))
        with ipc.new_stream(folder / split / "data-00000-of-00001.arrow", columns.schema) as out:
            out.write_table(columns)
        (folder / split / "state.json").write_text("{}")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    return Shape(data=[folder], rows=by_split(REVIEWS))


def files_of_spark(folder: Path) -> Shape:
    for part in range(3):
        text = lines(REVIEWS[part * 20 : part * 20 + 20])
        (folder / f"part-0000{part}-6c1f-c000.json").write_text(text)
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-00000.crc").write_text("x")
    return Shape(data=[folder], rows={"": REVIEWS})


def several_files(folder: Path) -> Shape:
    (folder / "may.csv").write_text(table(REVIEWS[:30]))
    (folder / "june.jsonl").write_text(lines(REVIEWS[30:]))
    return Shape(data=[folder / "may.csv", folder / "june.jsonl"], rows={"": REVIEWS})


def several_named_files(folder: Path) -> Shape:
    names = {"train": "reviews_train.tsv", "validation": "reviews_dev.tsv", "test": "test.tsv"}
    for split, pairs in by_split(REVIEWS).items():
        (folder / names[split]).write_text(csv_text([("text", "label"), *pairs], "\t"))
    return Shape(data=[folder / name for name in names.values()], rows=by_split(REVIEWS))


def packed_by_gzip(folder: Path) -> Shape:
    (folder / "reviews.csv.gz").write_bytes(gzip.compress(table(REVIEWS).encode()))
    return Shape(data=[folder / "reviews.csv.gz"], rows={"": REVIEWS})


def packed_by_zstd(folder: Path) -> Shape:
    packed = pa.compress(lines(REPORTS, "article", "highlights").encode(), "zstd", asbytes=True)
    (folder / "reports.jsonl.zst").write_bytes(packed)
    return Shape(data=[folder / "reports.jsonl.zst"], rows={"": REPORTS})


def packed_by_bzip2(folder: Path) -> Shape:
    (folder / "reviews.tsv.bz2").write_bytes(
        bz2.compress(csv_text([("text", "label"), *REVIEWS], "\t").encode())
    )
    return Shape(data=[folder / "reviews.tsv.bz2"], rows={"": REVIEWS})


def competition_archive(folder: Path) -> Shape:
    with zipfile.ZipFile(folder / "nice-hotels.zip", "w") as archive:
        archive.writestr("train.csv", csv_text([("id", "text", "target"), *numbered(REVIEWS)]))
        archive.writestr("test.csv", csv_text([("id", "text"), (0, "Who knows?")]))
        archive.writestr("sample_submission.csv", csv_text([("id", "target"), (0, "good")]))
        archive.writestr("__MACOSX/._train.csv", "junk")
    return Shape(data=[folder / "nice-hotels.zip"], rows={"": REVIEWS})


def numbered(pairs: Sequence[Pair]) -> list[tuple[int, str, str]]:
    return [(number, *pair) for number, pair in enumerate(pairs)]


def json_under_a_key(folder: Path) -> Shape:
    content = {"version": "1.1", "data": records(REPORTS, "question", "answer")}
    (folder / "reports.json").write_text(json.dumps(content, indent=2))
    return Shape(data=[folder / "reports.json"], rows={"": REPORTS})


def json_by_split(folder: Path) -> Shape:
    content = {"train": records(REVIEWS[:50]), "test": records(REVIEWS[50:])}
    (folder / "reviews.json").write_text(json.dumps(content))
    return Shape(
        data=[folder / "reviews.json"],
        rows={"train+validation": REVIEWS[:50], "test": REVIEWS[50:]},
    )


def json_of_pandas(folder: Path) -> Shape:
    frame(REVIEWS).to_json(folder / "reviews.json")
    return Shape(data=[folder / "reviews.json"], rows={"": REVIEWS})


def json_of_pandas_split(folder: Path) -> Shape:
    frame(REVIEWS).to_json(folder / "reviews.json", orient="split")
    return Shape(data=[folder / "reviews.json"], rows={"": REVIEWS})


def json_of_pandas_by_row(folder: Path) -> Shape:
    frame(REVIEWS).to_json(folder / "reviews.json", orient="index")
    return Shape(data=[folder / "reviews.json"], rows={"": REVIEWS})


def json_of_columns(folder: Path) -> Shape:
    content = {"text": [a for a, _ in REVIEWS], "label": [b for _, b in REVIEWS]}
    (folder / "reviews.json").write_text(json.dumps(content))
    return Shape(data=[folder / "reviews.json"], rows={"": REVIEWS})


def json_printed_one_after_the_other(folder: Path) -> Shape:
    text = "\n".join(json.dumps(record, indent=2) for record in records(REVIEWS))
    (folder / "reviews.json").write_text(text)
    return Shape(data=[folder / "reviews.json"], rows={"": REVIEWS})


def csv_without_a_header(folder: Path) -> Shape:
    (folder / "reviews.csv").write_text(csv_text(REVIEWS))
    return Shape(data=[folder / "reviews.csv"], rows={"": REVIEWS})


def tsv_without_a_header(folder: Path) -> Shape:
    rows = [(label, text) for text, label in REVIEWS]
    (folder / "SMSSpam.tsv").write_text(csv_text(rows, "\t"))
    flags = ("--columns", "mood", "text")
    return Shape(data=[folder / "SMSSpam.tsv"], rows={"": REVIEWS}, flags=flags)


def cyrillic_csv(folder: Path) -> Shape:
    pairs = [(f"Отель {i}, было {('чудно', 'ужасно')[i % 2]}", str(i % 2)) for i in range(60)]
    text = csv_text([("Отзыв", "Оценка"), *pairs], ";")
    (folder / "отзывы.csv").write_bytes(text.encode("cp1251"))
    return Shape(data=[folder / "отзывы.csv"], rows={"": pairs}, flags=("--encoding", "cp1251"))


def csv_below_a_preamble(folder: Path) -> Shape:
    text = (
        f"Reviews of the year\nExported by hand\n\n{csv_text([('text', 'label'), *REVIEWS], ';')}"
    )
    (folder / "export.csv").write_text(text)
    return Shape(data=[folder / "export.csv"], rows={"": REVIEWS}, flags=("--skip-rows", "3"))


def workbook_of_splits(folder: Path) -> Shape:
    with pd.ExcelWriter(folder / "reviews.xlsx") as book:
        pd.DataFrame({"About": ["made by hand"]}).to_excel(book, sheet_name="Cover", index=False)
        for split, pairs in by_split(REVIEWS).items():
            frame(pairs).to_excel(book, sheet_name=split.title(), index=False)
    return Shape(data=[folder / "reviews.xlsx"], rows=by_split(REVIEWS))


def workbook_with_a_cover_and_a_title(folder: Path) -> Shape:
    book = openpyxl.Workbook()
    cover = book.active
    assert cover is not None
    for row in (("Reviews",), ("Author", "Ann"), ("Date", "May")):
        cover.append(row)
    sheet = book.create_sheet("Data")
    sheet.append(["Reviews of the harbour hotel"])
    sheet.merge_cells("A1:C1")
    sheet.append([])
    sheet.append(["No", "Review: text", "Sentiment"])
    for row in numbered(REVIEWS):
        sheet.append(row)
    book.save(folder / "reviews.xlsx")
    return Shape(data=[folder / "reviews.xlsx"], rows={"": REVIEWS})


def column_of_splits(folder: Path) -> Shape:
    rows = [
        (text, label, {"validation": "val"}.get(split, split))
        for split, part in SPLITS.items()
        for text, label in REVIEWS[part]
    ]
    (folder / "reviews.csv").write_text(csv_text([("text", "label", "split"), *rows]))
    return Shape(data=[folder / "reviews.csv"], rows=by_split(REVIEWS))


def parquet_with_a_named_index(folder: Path) -> Shape:
    frame(REVIEWS, "review").set_index("review").to_parquet(folder / "reviews.parquet")
    return Shape(data=[folder / "reviews.parquet"], rows={"": REVIEWS})


def parquet_after_a_shuffle(folder: Path) -> Shape:
    frame(REVIEWS).sample(frac=1, random_state=1).to_parquet(folder / "reviews.parquet")
    return Shape(data=[folder / "reviews.parquet"], rows={"": REVIEWS})


def csv_with_pandas_index(folder: Path) -> Shape:
    table = frame(REVIEWS, "reviews.text", "reviews.doRecommend")
    table.to_csv(folder / "reviews.csv")
    return Shape(data=[folder / "reviews.csv"], rows={"": REVIEWS})


def columns_that_are_numbers(folder: Path) -> Shape:
    pd.DataFrame(REVIEWS).to_csv(folder / "reviews.csv", index=False)
    return Shape(data=[folder / "reviews.csv"], rows={"": REVIEWS})


def instructions_of_alpaca(folder: Path) -> Shape:
    content = [
        {
            "instruction": f"Say what is in report {i}.",
            "input": a if i % 2 else "",
            "output": f"{b}, which is told at far greater length than it was ever asked about",
        }
        for i, (a, b) in enumerate(REPORTS)
    ]
    (folder / "alpaca.json").write_text(json.dumps(content, indent=4))
    pairs = [(f"{row['instruction']} {row['input']}", row["output"]) for row in content]
    return Shape(data=[folder / "alpaca.json"], rows={"": pairs})


def prompts_and_completions(folder: Path) -> Shape:
    pairs = [(b, f"{a} And so on, and on, and on.") for a, b in REPORTS]
    (folder / "pairs.jsonl").write_text(lines(pairs, "prompt", "completion"))
    return Shape(data=[folder / "pairs.jsonl"], rows={"": pairs})


def airline_tweets(folder: Path) -> Shape:
    header = ("tweet_id", "airline_sentiment", "airline_sentiment_confidence", "negativereason")
    rows = [
        (570306133677760513 + i, label, 0.5 + i / 200, "late" if i == 3 else "", "", text, "Boston")
        for i, (text, label) in enumerate(REVIEWS)
    ]
    columns = (*header, "airline_sentiment_gold", "text", "tweet_location")
    (folder / "Tweets.csv").write_text(csv_text([columns, *rows]))
    return Shape(data=[folder / "Tweets.csv"], rows={"": REVIEWS})


def many_labels(folder: Path) -> Shape:
    pairs = [(f"Where is my card number {i}?", f"intent {i % 77}") for i in range(77 * 6)]
    (folder / "banking.csv").write_text(csv_text([("text", "category"), *pairs]))
    return Shape(data=[folder / "banking.csv"], rows={"": pairs})


SHAPES: list[Callable[[Path], Shape]] = [
    hub_parquet,
    hub_shards_with_class_names,
    folders_of_splits,
    saved_to_disk,
    files_of_spark,
    several_files,
    several_named_files,
    packed_by_gzip,
    packed_by_zstd,
    packed_by_bzip2,
    competition_archive,
    json_under_a_key,
    json_by_split,
    json_of_pandas,
    json_of_pandas_split,
    json_of_pandas_by_row,
    json_of_columns,
    json_printed_one_after_the_other,
    csv_without_a_header,
    tsv_without_a_header,
    cyrillic_csv,
    csv_below_a_preamble,
    workbook_of_splits,
    workbook_with_a_cover_and_a_title,
    column_of_splits,
    parquet_with_a_named_index,
    parquet_after_a_shuffle,
    csv_with_pandas_index,
    columns_that_are_numbers,
    instructions_of_alpaca,
    prompts_and_completions,
    airline_tweets,
    many_labels,
]


@pytest.fixture(autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name, value in world(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(home)


def flags_of_the_hint(shape: Shape) -> list[str]:
    """What a user types who follows the first message, beside the one flag of the shape's."""
    data = ["--data", *map(str, shape.data)]
    _, fix = call("sweeps.run", "table", "--tiny", "--dry-run", *data, *shape.flags).refusal()
    assert " try " in f" {fix}", fix
    return [*data, *shape.flags, *shlex.split(fix.partition("try ")[2])]


@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_rows_are_read_as_their_owner_meant(make: Callable[[Path], Shape], tmp_path: Path) -> None:
    shape = make(tmp_path)
    config = read_command(["table", "--tiny", *flags_of_the_hint(shape)]).config
    splits = TASKS["table"](config.task_options).load(config.data)
    question = splits.prompt_template.partition("\n\n")[0] + "\n\n"
    question = "" if config.task_options.prompt else question
    found = {
        split: Counter((row.prompt.removeprefix(question), row.target) for row in some)
        for split, some in vars(splits).items()
        if split in SPLITS
    }
    wanted = {split: Counter(pairs) for split, pairs in shape.rows.items()}
    if "" in wanted:
        found = {"": found["train"] + found["validation"] + found["test"]}
    if "train+validation" in wanted:
        found = {"train+validation": found["train"] + found["validation"], "test": found["test"]}
    assert found == wanted
    has_labels = len({target for pairs in wanted.values() for _, target in pairs}) in (2, 77)
    assert (splits.scoring.kind == "classify") == has_labels


@pytest.mark.parametrize("make", [hub_parquet, competition_archive, cyrillic_csv, json_by_split])
def test_real_command_plans_the_rows(make: Callable[[Path], Shape], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shape = make(tmp_path / "data")
    flags = flags_of_the_hint(shape)
    ended = call("sweeps.run", "table", "--tiny", "--dry-run", *flags)
    assert ended.code == 0, ended.stderr
    num_rows = sum(map(len, shape.rows.values()))
    told = [line for line in ended.stdout.splitlines() if line.startswith("rows ")]
    assert sum(int(word.strip(",")) for word in told[0].split() if word.strip(",").isdecimal()) == (
        num_rows
    )
