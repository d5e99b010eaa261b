"""Rows that cannot be read, or that no sweep can be made of."""

import gzip
import json
from collections.abc import Mapping

from tests.benchmarks.mistakes.damage import Damage, chain, link, make_folder, make_pipe
from tests.benchmarks.mistakes.mistake import Mistake

COMMAND = "sweeps.run table --tiny --data {} --input text --target mood --kind classify"
FILE = COMMAND.format("a.csv")
TEXTS = "sweeps.run table --tiny --data {} --input text --target mood --kind summarize"
CHAT = "sweeps.run table --tiny --data {} --input messages --kind chat"
BYTES = bytes(range(256)) * 40


def _make_rows(count: int = 60) -> list[dict[str, str]]:
    return [
        {"text": f"this is text number {n} of many, {n * n}", "mood": ("good", "bad")[n % 2]}
        for n in range(count)
    ]


def _format_csv(rows: list[dict[str, str]]) -> str:
    return "text;mood\n" + "".join(f"{row['text']};{row['mood']}\n" for row in rows)


def _dump(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _alter(**values: object) -> list[dict[str, object]]:
    return [dict(row) | values for row in _make_rows()]


GOOD = _format_csv(_make_rows())
SPLITS = {
    f"d/{name}.csv": _format_csv(_make_rows(120)[first : first + 40])
    for name, first in (("train", 0), ("validation", 40), ("test", 80))
}
SAME = {f"d/{name}.csv": GOOD for name in ("train", "validation", "test")}
LINES = _dump(_alter())

FILES: list[tuple[str, str, str | bytes, str]] = [
    ("is empty", "a.csv", "", "a.csv"),
    ("is blank", "a.csv", "\n \n\n", "a.csv"),
    ("has a header only", "a.csv", "text;mood\n", "a.csv"),
    ("has no such columns", "a.csv", GOOD.replace("text;mood", "words;feeling"), "text"),
    ("has the target column under another name", "a.csv", GOOD.replace(";mood", ";moods"), "mood"),
    ("has no header", "a.csv", GOOD.partition("\n")[2], "text"),
    ("has a column twice", "a.csv", GOOD.replace("text;mood", "mood;mood"), "mood"),
    ("has one row", "a.csv", _format_csv(_make_rows(1)), "1"),
    ("has one label", "a.csv", GOOD.replace(";bad", ";good"), "good"),
    (
        "has as many labels as rows",
        "a.jsonl",
        _dump([{"text": f"t {n}", "mood": f"label {n}"} for n in range(2500)]),
        "mood",
    ),
    ("has empty texts", "a.jsonl", _dump(_alter(text="  ")), "60 rows"),
    ("has no label anywhere", "a.jsonl", _dump(_alter(mood=None)), "60 rows"),
    ("holds NUL bytes", "a.csv", "text;mood\n" + "\0" * 4000, "a.csv"),
    ("is a picture", "a.csv", b"\x89PNG\r\n\x1a\n" + BYTES, "a.csv"),
    (
        "is no UTF-8 in JSON Lines",
        "a.jsonl",
        LINES.encode() + b'{"text": "\xff\xfe\x80"}\n',
        "a.jsonl",
    ),
    ("has a broken line", "a.jsonl", LINES + '{"text": "cut\n', "a.jsonl"),
    ("has numbers for lines", "a.jsonl", "1\n2\n3\n", "a.jsonl"),
    ("is cut JSON", "a.json", json.dumps(_make_rows())[:-40], "a.json"),
    ("is a JSON text", "a.json", '"rows"', "a.json"),
    ("is an empty JSON array", "a.json", "[]", "a.json"),
    ("is nested for ever", "a.json", "[" * 100_000, "a.json"),
    ("has lists where texts are", "a.jsonl", _dump(_alter(text=["a", "b"])), "text"),
    ("has objects where labels are", "a.jsonl", _dump(_alter(mood={"a": 1})), "60 rows"),
    ("is no Parquet", "a.parquet", BYTES, "a.parquet"),
    ("is Parquet cut short", "a.parquet", b"PAR1" + BYTES, "a.parquet"),
    ("is no Arrow", "a.arrow", BYTES, "a.arrow"),
    ("is no gzip", "a.csv.gz", GOOD, "a.csv.gz"),
    ("is gzip cut short", "a.csv.gz", gzip.compress(GOOD.encode())[:-60], "a.csv.gz"),
    ("is no zip", "a.zip", BYTES, "a.zip"),
    ("is no zstd", "a.csv.zst", BYTES, "a.csv.zst"),
    ("is no bzip2", "a.csv.bz2", BYTES, "a.csv.bz2"),
    ("is no workbook", "a.xlsx", BYTES, "a.xlsx"),
    ("is an old workbook", "a.xls", BYTES, "a.xls"),
    ("is a text document", "a.docx", BYTES, "a.docx"),
    ("is of no known type", "a.dat", GOOD, "a.dat"),
    ("is a pickle", "a.pkl", b"\x80\x04K\x01.", "a.pkl"),
    ("has lines of unequal length", "a.csv", GOOD + "a;b;c;d;e\n" * 50, "a.csv"),
    (
        "has a quote that never ends",
        "a.csv",
        'text,mood\n"never ends,good\n' + "x,bad\n" * 40,
        "a.csv",
    ),
]
"""What is wrong, the file, its content, and what the error has to name."""

FOLDERS: list[tuple[str, Mapping[str, str | bytes], str]] = [
    ("is an empty folder", {"d/.keep": ""}, "d"),
    ("is a folder without tables", {"d/README.md": "# Rows\n"}, "d"),
    ("has a validation file only", {"d/validation.csv": GOOD}, "train"),
    ("has a test file only", {"d/test.csv": GOOD}, "train"),
    ("has splits with other columns", SPLITS | {"d/test.csv": "a;b\nc;d\n"}, "test"),
    ("has an empty validation", SPLITS | {"d/validation.csv": "text;mood\n"}, "validation"),
    ("has the same rows in all splits", SAME, "train"),
    (
        "has a label in test alone",
        {
            "d/train.csv": _format_csv(_make_rows()[:40]),
            "d/validation.csv": _format_csv(_make_rows()[40:50]),
            "d/test.csv": "text;mood\nwhat a day;odd\nno more;odd\n",
        },
        "odd",
    ),
]

FLAGS: list[tuple[str, str, str]] = [
    ("a file that is not there", COMMAND.format("none.csv"), "none.csv"),
    ("a file and none", COMMAND.format("a.csv none.csv"), "none.csv"),
    ("a URL", COMMAND.format("https://example.org/rows.csv"), "https://example.org/rows.csv"),
    ("an S3 URL", COMMAND.format("s3://bucket/rows.csv"), "s3://bucket/rows.csv"),
    ("a dataset of the Hub without a network", COMMAND.format("nobody/nothing"), "nobody/nothing"),
    ("an unknown encoding", f"{FILE} --encoding utf-9", "utf-9"),
    ("an encoding that does not fit", f"{FILE} --encoding utf-16", "a.csv"),
    ("more lines to skip than there are", f"{FILE} --skip-rows 999", "a.csv"),
    ("names for too many columns", f"{FILE} --columns a b c d", "columns"),
    ("a sheet of a file that has none", f"{FILE} --sheet Rows", "sheet"),
    ("no row at all", f"{FILE} --max-rows 0", "--max-rows"),
    ("a label that is not there", f"{FILE} --label-names great=fine", "great"),
    ("two labels of one name", f"{FILE} --label-names good=x bad=x", "x"),
    ("a metric of a label that is not there", f"{FILE} --metric f1_odd", "odd"),
    ("a prompt without its braces", f"{FILE} --prompt 'What mood?'", "prompt"),
    (
        "columns that are one",
        "sweeps.run table --tiny --data a.csv --input text --target text --kind classify",
        "text",
    ),
    ("no columns", "sweeps.run table --tiny --data a.csv --kind classify", "--input"),
    ("conversations that are texts", CHAT.format("a.csv").replace("messages", "text"), "60 rows"),
    ("paraphrases without their column", f"{FILE} --paraphrases a.csv", "paraphrase"),
    (
        "prompts longer than the model reads",
        TEXTS.format("a.csv") + " --max-length-tokens 16",
        "16 tokens",
    ),
    ("a row of another task", "sweeps.run samsum --tiny --data a.csv", "dialogue"),
]
"""With a good file a.csv beside it."""


def _make_turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"words of {role} {n}"} for n, role in enumerate(roles)]


CHATS: list[tuple[str, object]] = [
    ("no assistant answers", _make_turns("user", "user")),
    ("roles are unknown", _make_turns("alice", "bob")),
    ("turns have no content", [{"role": "user"}, {"role": "assistant"}]),
    ("there are no turns", []),
    ("turns are numbers", [1, 2, 3]),
]


PLACES: list[tuple[str, str, Damage]] = [
    ("is a pipe", "a.csv", make_pipe("a.csv")),
    ("is a link to nothing", "a.csv", link("a.csv", "gone.csv")),
    ("is a folder that holds itself", "d", chain(make_folder("d"), link("d/d", "../d"))),
]

MISTAKES = [
    *(
        Mistake(
            kind="data",
            title=title,
            command=COMMAND.format(name),
            files={name: content},
            named=named,
        )
        for title, name, content, named in FILES
    ),
    *(
        Mistake(kind="data", title=title, command=COMMAND.format("d"), files=files, named=named)
        for title, files, named in FOLDERS
    ),
    *(
        Mistake(kind="data", title=title, command=command, files={"a.csv": GOOD}, named=named)
        for title, command, named in FLAGS
    ),
    *(
        Mistake(
            kind="data",
            title=title,
            command=CHAT.format("a.jsonl"),
            files={"a.jsonl": _dump([{"messages": turns, "n": n} for n in range(60)])},
            named="messages",
        )
        for title, turns in CHATS
    ),
    *(
        Mistake(kind="data", title=title, command=COMMAND.format(name), prepare=prepare, named=name)
        for title, name, prepare in PLACES
    ),
]
