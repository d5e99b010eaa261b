"""Runs whose records were damaged by hand, and what each command that reads them says of it."""

import contextlib
import functools
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.mistakes.damage import (
    Damage,
    chain,
    cut,
    link,
    link_out,
    make_folder,
    remove,
    replace,
    replace_by_folder,
    write,
)
from tests.benchmarks.mistakes.mistake import Mistake
from tests.sweeps.commands import TINY, world

FLAGS = (
    "samsum --tiny --data data --num-trials 2 --max-steps 3 --num-rungs 1 --no-finals "
    "--no-estimate --eval-rows 8 --eval-batch-size 8 --max-new-tokens 8 --batch-size 2 "
    "--micro-batch-size 2 --max-length-tokens 256 --name base"
)
NUM_ROWS = 24
COMMANDS = {
    "ask": "sweeps.ask runs/base --num-trials 3",
    "demo": "sweeps.demo runs/base",
    "export": "sweeps.export runs/base --to copy",
    "export a trial": "sweeps.export runs/base --to copy --trial t0001",
    "judge": "sweeps.judge runs/base --endpoint http://127.0.0.1:9/v1 --model m --max-retries 0",
    "predict": "sweeps.predict runs/base --input data/test.jsonl --output out.jsonl",
    "report": "sweeps.report runs/base",
    "resume": f"sweeps.run {FLAGS.replace('--data data ', '')} --resume",
    "status": "sweeps.status runs/base",
    "sync": "sweeps.sync runs/base --wandb offline",
    "sync the study": "sweeps.sync runs/base --track optuna",
    "verify": "sweeps.verify runs/base t0000",
}
LOG, RECORD, BEST = "events.jsonl", "sweep.json", "best"
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
WEIGHTS, CONFIG = f"{BEST}/{WEIGHTS_FILE}", f"{BEST}/{CONFIG_FILE}"
CHECKPOINT = "checkpoints/t0001/checkpoint-3"
NEWER = '{"time": "2030-01-01T00:00:00+00:00", "kind": "trial_started", "trial": 7}\n'

LOADERS = ("export", "predict", "demo")
READERS = ("ask", "report", "resume", "status", "sync", "verify")
EVERYWHERE = ("ask", "demo", "judge", "predict", "report", "resume", "status", "verify")
DAMAGES: list[tuple[str, Damage, str, tuple[str, ...]]] = [
    ("sweep.json is empty", write(RECORD, ""), RECORD, (*EVERYWHERE, "sync")),
    ("sweep.json is cut", cut(RECORD), RECORD, (*EVERYWHERE, "sync")),
    ("sweep.json is gone", remove(RECORD), "base", (*EVERYWHERE, "export", "sync")),
    ("sweep.json is a list", write(RECORD, "[]"), RECORD, ("status", "resume")),
    ("sweep.json holds NUL bytes", write(RECORD, b"\0" * 4096), RECORD, ("report", "ask")),
    ("sweep.json is no UTF-8", write(RECORD, b"\xff\xfe{"), RECORD, ("predict", "status")),
    ("sweep.json is nested for ever", write(RECORD, "[" * 100_000), RECORD, ("status", "sync")),
    ("sweep.json is a folder", replace_by_folder(RECORD), "base", ("status", "resume", "demo")),
    ("sweep.json leads out of the run", link_out(RECORD), RECORD, ("export", "report", "resume")),
    (
        "sweep.json is a link to nothing",
        chain(remove(RECORD), link(RECORD)),
        "",
        ("status", "predict"),
    ),
    (
        "sweep.json has a text for a number",
        replace(RECORD, '"max_steps": 3', '"max_steps": "x"'),
        RECORD,
        ("verify", "resume"),
    ),
    (
        "sweep.json names another task",
        replace(RECORD, '"task": "samsum"', '"task": "poetry"'),
        "poetry",
        ("verify", "resume"),
    ),
    ("events.jsonl is gone", remove(LOG), "", ("verify", "export a trial")),
    ("events.jsonl is empty", write(LOG, ""), "", ("verify", "export a trial")),
    ("events.jsonl is a folder", replace_by_folder(LOG), LOG, READERS),
    ("events.jsonl leads out of the run", link_out(LOG), LOG, ("report", "resume", "verify")),
    ("events.jsonl is cut within", replace(LOG, '"kind": "trial_started", ', ""), LOG, READERS),
    ("events.jsonl has a broken line", replace(LOG, '{"time"', '{"ti\n{"time"'), LOG, READERS),
    ("events.jsonl holds NUL bytes", replace(LOG, '"kind"', "\0" * 64), LOG, ("report", "resume")),
    ("events.jsonl is no UTF-8", write(LOG, b"\xff\xfe\n{}\n"), LOG, ("status", "resume")),
    ("events.jsonl holds a list", write(LOG, "[]\n{}\n"), LOG, ("status", "report")),
    ("events.jsonl is of another version", write(LOG, NEWER), LOG, ("status", "resume", "report")),
    (
        "events.jsonl has a text for a step",
        replace(LOG, '"step": 3', '"step": "x"'),
        LOG,
        ("status", "verify", "resume"),
    ),
    (
        "events.jsonl has no start of a trial",
        replace(LOG, "trial_started", "pack_lost"),
        "t0000",
        ("status", "report", "resume"),
    ),
    ("rows/ is gone", remove("rows"), "rows", ("resume", "verify")),
    ("rows/train.parquet is gone", remove("rows/train.parquet"), "train", ("resume", "verify")),
    ("rows/train.parquet is cut", cut("rows/train.parquet"), "train", ("resume", "verify")),
    ("rows/train.parquet is empty", write("rows/train.parquet", ""), "train", ("resume", "verify")),
    (
        "rows/validation.parquet is a folder",
        replace_by_folder("rows/validation.parquet"),
        "rows",
        ("resume", "verify"),
    ),
    (
        "rows/test.parquet leads out of the run",
        link_out("rows/test.parquet"),
        "test",
        ("resume", "verify"),
    ),
    (
        "rows/test.parquet holds other rows",
        lambda run: shutil.copy(run / "rows" / "train.parquet", run / "rows" / "test.parquet"),
        "test",
        ("resume",),
    ),
    ("best/ is gone", remove(BEST), BEST, ("export", "predict", "demo", "judge")),
    ("best/ is a file", chain(remove(BEST), write(BEST, "x")), BEST, ("export", "predict")),
    ("best/ is empty", replace_by_folder(BEST), BEST, LOADERS),
    ("the winner's weights are gone", remove(WEIGHTS), WEIGHTS_FILE, LOADERS),
    ("the winner's weights are empty", write(WEIGHTS, ""), WEIGHTS_FILE, LOADERS),
    ("the winner's weights are cut", cut(WEIGHTS), WEIGHTS_FILE, LOADERS),
    ("the winner's config is gone", remove(CONFIG), CONFIG_FILE, LOADERS),
    ("the winner's config is cut", cut(CONFIG), "best", LOADERS),
    (
        "the winner's weights lead out of the run",
        link_out(WEIGHTS),
        WEIGHTS_FILE,
        ("export", "predict"),
    ),
    (
        "the winner's answers are gone",
        remove(f"{BEST}/test_predictions.jsonl"),
        "test_predictions.jsonl",
        ("judge",),
    ),
    ("checkpoints/ is gone", remove("checkpoints"), "t0001", ("export a trial",)),
    (
        "a checkpoint's weights are cut",
        cut(f"{CHECKPOINT}/{WEIGHTS_FILE}"),
        "t0001",
        ("export a trial",),
    ),
    (
        "a checkpoint's config is cut",
        cut(f"{CHECKPOINT}/{CONFIG_FILE}"),
        "t0001",
        ("export a trial",),
    ),
    ("requests.jsonl is a folder", make_folder("requests.jsonl"), "requests.jsonl", ("ask",)),
    ("optuna.db is no database", write("optuna.db", "x" * 4096), "optuna", ("sync the study",)),
    ("optuna.db is a folder", replace_by_folder("optuna.db"), "optuna", ("sync the study",)),
    ("report.html is a folder", replace_by_folder("report.html"), "report.html", ("report",)),
    (".lock is a folder", replace_by_folder(".lock"), ".lock", ("resume",)),
]
"""What is damaged, how, what the error has to name, and the commands that must refuse it."""

JUDGE = COMMANDS["judge"]
INTACT = [
    ("sweeps.verify runs/base t0099", "t0099"),
    ("sweeps.export runs/base --to copy --trial t0099", "t0099"),
    ("sweeps.export runs/base --to copy --private", "private"),
    ("sweeps.export runs/base --to copy --revision draft", "revision"),
    ("sweeps.export runs/base --to data", "data"),
    ("sweeps.export runs/base --to runs/base/best", "best"),
    ("sweeps.export runs/base --to hub:me/mine", "token"),
    ("sweeps.report runs/base --output data", "data"),
    ("sweeps.report runs/base --output gone/page.html", "gone"),
    ("sweeps.report runs", "runs"),
    ("sweeps.predict runs/base --input data/test.jsonl --output out.xlsx", "out.xlsx"),
    ("sweeps.predict runs/base --input none.jsonl --output out.jsonl", "none.jsonl"),
    ("sweeps.predict runs/base --input runs/base/trials.csv --output out.jsonl", "dialogue"),
    ("sweeps.predict runs/base --input data/test.jsonl --output data/test.jsonl", "test.jsonl"),
    ("sweeps.predict runs/base --input data/test.jsonl --output out.csv --model none", "none"),
    ("sweeps.predict runs/base --input data/test.jsonl --output out.csv --trial t9", "t9"),
    (
        "sweeps.predict runs/base --input data/test.jsonl --output out.csv --base --trial t0000",
        "--base",
    ),
    ("sweeps.predict runs/base --input - --output out.jsonl", "standard input"),
    ("sweeps.ask runs/base", "nothing is asked"),
    ("sweeps.ask runs/base --finish --num-trials 4", "one thing"),
    ("sweeps.ask runs/base --num-trials 0", "--num-trials"),
    ("sweeps.ask runs/base --stop t0099", "t0099"),
    ("sweeps.ask runs/base --stop t0000", "t0000"),
    ("sweeps.ask runs/base --add lora_rnk=3", "lora_rnk"),
    ("sweeps.ask runs/base --add lora_rank", "lora_rank"),
    ("sweeps.ask runs/base --add lora_rank=4096", "4096"),
    ("sweeps.demo runs/base --trial t0099", "t0099"),
    ("sweeps.demo runs/base --model none", "none"),
    (f"{JUDGE} --temperature -1", "temperature"),
    (f"{JUDGE} --price-prompt -1", "--price-prompt"),
    ("sweeps.sync runs/base --track mlfow", "mlfow"),
    ("sweeps.sync runs/base --wandb online", "login"),
    (f"sweeps.run {FLAGS}", "base"),
    (f"{COMMANDS['resume']} --max-steps 4", "max_steps"),
    (f"{COMMANDS['resume']} --metric rouge1", "metric"),
    (f"{COMMANDS['resume']} --seed 7", "seed"),
    (f"{COMMANDS['resume']} --model tiny-hybrid", "model"),
]
"""What is wrong with a command on a run that is whole, and what the error has to name."""

_base: Path | None = None
"""Where the run lies that is damaged in copies."""


@contextlib.contextmanager
def hold_run(folder: Path | None) -> Iterator[None]:
    """Holds a finished run with two trials, as runs/base in folder; None makes one."""
    global _base
    with tempfile.TemporaryDirectory(prefix="base-", dir="/tmp") as made:
        _base = folder or make_run(Path(made))
        yield


def make_run(folder: Path) -> Path:
    """A tiny sweep of a few rows, in folder/runs/base, with its rows in folder/data."""
    (folder / "data").mkdir()
    for path in (TINY / "samsum").iterdir():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (folder / "data" / path.name).write_text("".join(lines[:NUM_ROWS]), "utf-8")
    command = [sys.executable, "-m", "sweeps.run", *shlex.split(FLAGS)]
    env = world(folder / "home")
    subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)
    return folder


def _copy_and_damage(damage: Damage, here: Path) -> None:
    assert _base is not None
    for name in ("data", "runs"):
        shutil.copytree(_base / name, here / name, symlinks=True)
    damage(here / "runs" / "base")


EVERY = [
    *(
        (f"{title}: {name}", damage, COMMANDS[name], named)
        for title, damage, named, names in DAMAGES
        for name in names
    ),
    *((f"{named} is wrong", chain(), command, named) for command, named in INTACT),
]

MISTAKES = [
    Mistake(
        kind="run",
        title=title,
        command=command,
        prepare=functools.partial(_copy_and_damage, damage),
        named=named,
    )
    for title, damage, command, named in EVERY
]
