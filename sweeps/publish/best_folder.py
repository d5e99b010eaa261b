"""best/: the winner's adapter with its tokenizer, model card and what it said to test."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sweeps.checks import sweep_json
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals import verdict as verdicts
from sweeps.finals.outcome import Outcome, Winner, read_outcome
from sweeps.finals.predictions import CONFUSION_CSV
from sweeps.finals.verdict import Verdict
from sweeps.finals.verdict_text import describe_place
from sweeps.publish.card_facts import CardFacts, make_facts
from sweeps.publish.license import CARD_FILE
from sweeps.publish.model_card import render
from sweeps.publish.search_picture import PICTURE_FILE, draw_search
from sweeps.records.events import parse_scores, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.run import check_is_run, read_run
from sweeps.records.trial_record import TrialRecord, find_reported
from sweeps.records.trials_csv import count_by_status
from sweeps.tracking.run_status import read_status
from trainables.checkpoint import get_checkpoint_folder, read_adapter_params
from trainables.checkpoint_storage import fetch_checkpoint
from trainables.data.prepared_rows import read_rows
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted, get_first_line
from trainables.files import parse_json
from trainables.metrics.classification import Confusion
from trainables.models.chat_template import make_greedy_config
from trainables.models.model_files import TOKENIZER_FILES, WEIGHTS_INDEX, list_tokenizer_files
from trainables.models.tokenizer_file import TokenizerFile
from trainables.models.weights import read_header
from trainables.shell import write_command

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
GENERATION_FILE = "generation_config.json"
EXPORTED = (
    *(*ADAPTER_FILES, CARD_FILE, GENERATION_FILE, CONFUSION_CSV, *TOKENIZER_FILES),
    *("config.json", "model.safetensors", WEIGHTS_INDEX, PICTURE_FILE),
)
"""All that leaves a run, beside shards of merged weights: what else lies in best/ may hold rows of
the data, or is not ours to publish."""
RESUME = "repeat the sweep's command with --resume"


def write_best(
    config: SweepConfig,
    preflight: Preflight,
    paths: RunPaths,
    trials: Sequence[TrialRecord],
    outcome: Outcome,
    verdict: Verdict | None = None,
) -> Confusion | None:
    """Writes the folder.

    Returns:
        Which labels the winner took for which; None of texts.
    """
    run, splits = outcome.winner.run, preflight.splits
    answered = predictions.load(paths, splits.test, run.trial_id)
    confusion = predictions.count_confusions(answered, splits)
    facts = make_facts(config, preflight.task, splits, paths, trials, outcome)
    facts = replace(facts, verdict=verdict, confusion=confusion)
    more_files = predictions.make_files(answered, confusion)
    write_folder(paths.best, outcome.winner.tested[run.trial_id], facts, more_files)
    return confusion


def write_trial(paths: RunPaths, trial_id: str, folder: Path) -> Path:
    """Writes the same folder of any trial whose adapter is there; its card says which it is.

    Returns:
        The folder; of the winner best/, where nothing is written.

    Raises:
        SweepAborted: there is no sweep, no such trial, or its adapter is gone.
    """
    run = read_run(paths)
    config = sweep_json.parse_config(run)
    chosen = read_outcome(run)
    if chosen is not None and chosen.winner.run.trial_id == trial_id and paths.best.is_dir():
        return find_best_folder(paths)
    record, adapter = find_adapter(paths, trial_id, config.storage)
    assert record.last is not None
    task, splits = TASKS[config.task](config.task_options), read_rows(paths.rows)
    scores = {"validation": dict(record.last.metrics)}
    for event in run.events:
        if event["kind"] == "final_scores":
            of = parse_scores(event["scores"])
            tested = {event["trial_id"]: of.get("test", {})}
            tested |= parse_scores(event.get("runs", {}))
            names = ["validation_base"] if record.num_steps == config.max_steps else []
            if trial_id in tested:
                scores["test"] = tested[trial_id]
                names.append("test_base")
            scores |= {name: of[name] for name in names if name in of}
    outcome = Outcome(winner=Winner(run=record, tested={trial_id: adapter}), scores=scores)
    facts = make_facts(config, task, splits, paths, run.trials, outcome)
    verdict, kept = verdicts.read(run), chosen.winner.run if chosen else None
    place = describe_place(record, kept, task.metric, verdict)
    facts = replace(facts, verdict=verdict, is_best=False, place=place)
    write_folder(folder, adapter, facts, {})
    return folder


def find_adapter(paths: RunPaths, trial_id: str, storage: str | None) -> tuple[TrialRecord, Path]:
    """The record and the PEFT folder of a trial, or of a run of the finals; if it is not on this
    disk, it is fetched from the storage.

    Raises:
        SweepAborted: there is none of that name, or its adapter is not there any more.
    """
    record = find_reported(paths, trial_id)
    folder = get_checkpoint_folder(paths.get_trial_folder(trial_id), record.num_steps)
    fetch_checkpoint(storage, folder)
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        there = sorted({path.parts[-3] for path in paths.checkpoints.glob(f"*/*/{missing[0]}")})
        raise SweepAborted(
            f"the adapter of {trial_id} is not there any more: {folder} lacks {missing[0]}",
            f"name one of: {', '.join(there)}" if there else "leave out --trial",
        )
    return record, folder


def check_adapter(folder: Path) -> None:
    """Refuses a PEFT folder whose files cannot be read."""
    try:
        read_adapter_params(folder)
        read_header(folder / ADAPTER_FILES[1])
    except (OSError, ValueError, SweepAborted) as damaged:
        raise SweepAborted(
            f"the adapter in {folder} is damaged: {get_first_line(damaged)}",
            "copy it here again, or name another --trial",
        ) from None


def write_folder(
    best: Path, checkpoint: Path, facts: CardFacts, more_files: Mapping[str, str]
) -> None:
    """Builds best/ beside its place and renames it, so that a reader never meets half an adapter.

    Args:
        checkpoint: PEFT folder of the best trial's last report.
        facts: for the card; its base_model gives the tokenizer, and adapter_config.json names it:
            a Hub id as it is, a folder absolute, to be found from any working directory.
        more_files: contents by name.

    Raises:
        SweepAborted: the checkpoint's adapter is damaged.
    """
    base, max_new_tokens = Path(facts.base_model), facts.settings.max_new_tokens
    picture = draw_search(facts)
    with replace_folder(best) as folder:
        check_adapter(checkpoint)
        shutil.copyfile(checkpoint / ADAPTER_FILES[1], folder / ADAPTER_FILES[1])
        config = parse_json((checkpoint / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = str(base.absolute()) if base.is_dir() else str(base)
        files = {
            ADAPTER_FILES[0]: json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            CARD_FILE: render(facts, has_picture=picture is not None),
            **more_files,
        }
        generation = make_greedy_config(TokenizerFile(facts.base_model), max_new_tokens)
        files[GENERATION_FILE] = json.dumps(generation, indent=2) + "\n"
        if picture is not None:
            (folder / PICTURE_FILE).write_bytes(picture)
        for path in list_tokenizer_files(facts.base_model):
            shutil.copyfile(path, folder / path.name)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="")


def find_best_folder(paths: RunPaths) -> Path:
    """The best/ folder of a run, complete.

    Raises:
        SweepAborted: no such run, it still runs or no trial of it finished, or best/ is missing or
            lacks files.
    """
    check_is_run(paths)
    missing = [n for n in (*ADAPTER_FILES, CARD_FILE) if not (paths.best / n).is_file()]
    if paths.best.is_dir() and missing:
        raise SweepAborted(
            f"{paths.best} lacks {', '.join(missing)}", f"remove that folder and {RESUME}"
        )
    if missing:
        status = read_status(paths)
        counts = count_by_status(status.trials, status.unended)
        trials = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        fix = RESUME + f"; {paths.trials_csv} says why trials failed" * ("failed" in counts)
        if status.state in ("running", "stalled"):
            watch = write_command("python", "-m", "sweeps.status", paths.folder, "--watch")
            fix = f"it still runs: wait, or {watch}"
        error = f"{paths.folder} has no best/ yet: {trials or 'no trial has begun'}"
        raise SweepAborted(error, fix)
    return paths.best


def find_best_run(paths: RunPaths) -> str | None:
    """The trial, or run of the finals, whose adapter is in best/; None where the log does not tell
    or cannot be read, which keeps no adapter from leaving."""
    with suppress(SweepAborted):
        for event in reversed(read_events(paths.events)):
            if event["kind"] == "final_scores":
                return str(event["trial_id"])
    return None


def list_exported(folder: Path) -> list[Path]:
    """The files of best/, or of merged weights, that leave the run.

    Raises:
        SweepAborted: one is a link, or no file: nobody knows what would be published.
    """
    shard = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
    known = [p for p in folder.iterdir() if p.name in EXPORTED or shard.fullmatch(p.name)]
    for path in known:
        if path.is_symlink() or not path.is_file():
            raise SweepAborted(
                f"{path} is no plain file but a {'link' if path.is_symlink() else 'folder'}",
                "put the file itself there; exports follow no links",
            )
    return sorted(known)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """A new folder beside target that takes its place if the block succeeds, else vanishes."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.with_name(f".{target.name}.{kind}") for kind in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not target.exists():  # failed, now or in a process that was stopped
            old.rename(target)
        shutil.rmtree(new, ignore_errors=True)
