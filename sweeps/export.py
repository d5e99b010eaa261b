"""python -m sweeps.export RUN --to hub:USER/NAME or DIR: the best adapter leaves the sweep."""

import csv
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import tyro
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from sweeps.cli import parse, run_command
from sweeps.publish.hub import NEVER_EXPORTED, aborted, upload
from sweeps.publish.model_card import CardFacts, render
from trainables.errors import SweepAborted
from trainables.models.model_files import tokenizer_files

PROG = "python -m sweeps.export"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CARD_FILE = "README.md"
TARGETS = "--to hub:USER/NAME (the Hugging Face Hub) or --to DIR (a new folder)"


@dataclass(frozen=True, kw_only=True)
class ExportArgs:
    """Copies or uploads the best adapter of a finished sweep; the run itself is only read."""

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    to: str
    """hub:USER/NAME for the Hugging Face Hub (HF_ENDPOINT and HF_TOKEN count), or a new folder."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """Create the Hub repository as private; one that is already public is refused."""
    revision: str | None = None
    """Branch of the Hub repository, created if missing; None is main."""


def main(argv: Sequence[str] | None = None) -> None:
    """Checks everything that can be checked here before anything is sent or written."""
    args = parse(ExportArgs, sys.argv[1:] if argv is None else argv, PROG)
    repo_id = _parse_target(args.to)
    best = find_best(args.run)
    check_card(best / CARD_FILE)
    if repo_id is None:
        _require(not args.private, "--private is for the Hub", f"leave it out, or {TARGETS}")
        _require(args.revision is None, "--revision is for the Hub", f"leave it out, or {TARGETS}")
        print(f"wrote {copy_best(best, Path(args.to))}")
    else:
        url = upload(best, repo_id, is_private=args.private, revision=args.revision)
        print(f"uploaded {best} in one commit: {url}")


def write_best(
    best_dir: Path,
    checkpoint: Path,
    facts: CardFacts,
    tokenizer_source: str,
    more_files: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Builds best/ beside its place and renames it, so that a reader never meets half an adapter.

    Args:
        checkpoint: PEFT folder of the best trial's last report.
        facts: for the card; base_model is also what adapter_config.json will name.
        tokenizer_source: Hub id or folder of the base.
        more_files: contents by name.
    """
    with _replace_folder(best_dir) as folder:
        shutil.copyfile(checkpoint / ADAPTER_FILES[1], folder / ADAPTER_FILES[1])
        config = json.loads((checkpoint / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = _base_name(facts.base_model)
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / ADAPTER_FILES[0]).write_text(text + "\n", encoding="utf-8")
        for path in tokenizer_files(tokenizer_source):
            shutil.copyfile(path, folder / path.name)
        (folder / CARD_FILE).write_text(render(facts), encoding="utf-8")
        for name, content in more_files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="")


def find_best(run: Path) -> Path:
    """The best/ folder of a run, complete.

    Raises:
        SweepAborted: no such run, no trial of it finished, or best/ is missing or lacks files.
    """
    _require(run.is_dir(), f"there is no run folder {run}", _name_runs_beside(run))
    _require(
        (run / "sweep.json").is_file(),
        f"{run} has no sweep.json: it is no run of a sweep",
        _name_runs_beside(run),
    )
    best = run / "best"
    if not best.is_dir():
        raise _explain_unfinished(run)
    missing = [name for name in (*ADAPTER_FILES, CARD_FILE) if not (best / name).is_file()]
    _require(
        not missing,
        f"{best} lacks {', '.join(missing)}",
        "remove that folder and repeat the sweep's command with --resume",
    )
    return best


def check_card(card: Path) -> None:
    """Raises SweepAborted unless the card's YAML is what huggingface_hub reads as a model card."""
    fix = f"correct the YAML between the --- lines of {card}"
    try:
        data = ModelCard(card.read_text(encoding="utf-8")).data
    except Exception as refused:  # yaml and huggingface_hub raise many kinds
        raise aborted(f"the metadata of {card} cannot be read: {refused}", fix) from None
    _require(data.get("library_name") == "peft", f"{card} does not say library_name: peft", fix)


def copy_best(best: Path, target: Path) -> Path:
    """Copies best/ to a folder that does not exist yet or is empty."""
    is_free = not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir()))
    _require(
        is_free,
        f"{target} exists and is not an empty folder",
        "choose another folder, or empty this one",
    )
    _require(
        not target.resolve().is_relative_to(best.resolve()),
        f"{target} is inside {best}",
        "choose a folder outside the run",
    )
    try:
        with _replace_folder(target) as folder:
            private = shutil.ignore_patterns(*NEVER_EXPORTED)
            shutil.copytree(best, folder, dirs_exist_ok=True, ignore=private)
    except OSError as failed:
        raise aborted(
            f"cannot write {target}: {failed.strerror or failed}",
            "choose a folder on a disk with space that you may write to",
        ) from None
    return target


def _parse_target(target: str) -> str | None:
    """Returns USER/NAME of a hub: target, None for a folder."""
    scheme, colon, repo_id = target.partition(":")
    if scheme != "hub" or not colon:
        _require(
            bool(target) and "://" not in target and scheme not in ("hf", "Hub", "HUB"),
            f"--to {target!r} is no target",
            TARGETS,
        )
        return None
    try:
        validate_repo_id(repo_id)
    except HFValidationError as refused:
        raise aborted(f"--to {target!r}: {refused}", TARGETS) from None
    _require(repo_id.count("/") == 1, f"--to {target!r} names no user or organisation", TARGETS)
    return repo_id


def _name_runs_beside(run: Path) -> str:
    runs = sorted(path.parent for path in run.parent.glob("*/sweep.json"))[:8]
    if runs:
        return f"{PROG} RUN with one of: {', '.join(map(str, runs))}"
    return "python -m sweeps.run samsum --tiny makes one in runs/"


def _explain_unfinished(run: Path) -> SweepAborted:
    """Says how far the sweep came, for a run without best/."""
    resume = "repeat the sweep's command with --resume"
    table = run / "trials.csv"
    if not table.is_file():
        return aborted(f"the sweep {run} has not ended: it has no trials.csv", resume)
    with table.open(encoding="utf-8", newline="") as file:
        statuses = Counter(row.get("status") or "unknown" for row in csv.DictReader(file))
    if statuses["completed"]:
        return aborted(f"the sweep {run} has no best/ folder yet", resume)
    counts = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()) if n)
    return aborted(
        f"no trial of {run} completed ({counts or 'no trials'})",
        f"read the reasons in {table}, then {resume}",
    )


@contextmanager
def _replace_folder(target: Path) -> Iterator[Path]:
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


def _base_name(base_model: str) -> str:
    """A Hub id as it is; a folder absolute, so that it is found from any working directory."""
    return str(Path(base_model).absolute()) if Path(base_model).is_dir() else base_model


def _require(holds: bool, error: str, fix: str) -> None:
    if not holds:
        raise aborted(error, fix)


if __name__ == "__main__":
    run_command(main)
