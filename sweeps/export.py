"""python -m sweeps.export RUN --to hub:USER/NAME or DIR: an adapter leaves the sweep."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.publish.best_folder import (
    check_adapter,
    find_best_folder,
    find_best_run,
    list_exported,
    replace_folder,
    write_trial,
)
from sweeps.publish.hub import make_redacted_error, require_token, upload
from sweeps.publish.license import CARD_FILE, check_identifier, state_license
from sweeps.publish.merged_folder import check_mergeable, write_merged
from sweeps.records.paths import find_run

PROG = "python -m sweeps.export"
TARGETS = "--to hub:USER/NAME (the Hugging Face Hub) or --to DIR (a new folder)"


@dataclass(frozen=True, kw_only=True)
class ExportArgs:
    """Copies or uploads an adapter of a sweep; the run itself is only read."""

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    to: str
    """hub:USER/NAME for the Hugging Face Hub (HF_ENDPOINT and HF_TOKEN count), or a new folder."""
    trial: str | None = None
    """Id of another trial, or run of the finals, whose adapter is still in checkpoints/, e.g.
    t0003; None is the winner in best/. The card says which it is and how it scored."""
    merge: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write whole weights in bfloat16, which transformers loads without PEFT: the adapter merged
    into the base over which it was trained and scored: as NF4 holds it, or of --base bf16 its own
    weights. Takes memory for the base in the sweep's --compute-dtype."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """Create the Hub repository as private; one that is already public is refused."""
    revision: str | None = None
    """Branch of the Hub repository, created if missing; None is main."""
    license: str | None = None
    """The Hub's identifier of the licence under which you publish, e.g. apache-2.0; None is that of
    the base, where its own card names one."""
    json: JsonFlag = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Checks everything that can be checked here before anything is sent or written."""
    args = parse(ExportArgs, argv, PROG)
    repo_id = _parse_target(args.to)
    if args.license is not None:
        check_identifier(args.license)
    with tempfile.TemporaryDirectory(prefix="sweeps-export-") as name:
        paths, temporary = find_run(args.run), Path(name)
        if args.trial is None:
            source, trial_id = find_best_folder(paths), find_best_run(paths)
        else:
            source, trial_id = write_trial(paths, args.trial, temporary / "adapter"), args.trial
        check_adapter(source)
        card = read_card(source / CARD_FILE)
        if args.license is not None:
            card = state_license(card, args.license)
        fill = partial(_copy_files, source, card)
        if repo_id is None:
            _require(not args.private, "--private is for the Hub", f"leave it out, or {TARGETS}")
            is_main = args.revision is None
            _require(is_main, "--revision is for the Hub", f"leave it out, or {TARGETS}")
            target = Path(args.to).expanduser()
            _check_target(source, target)
            if args.merge:
                base = check_mergeable(paths, source, card, target)
                fill = partial(write_merged, paths, source, card, base)
            print(f"wrote {_write_folder(target, fill)}")
            where: dict[str, object] = {"folder": target.absolute()}
        else:
            require_token()
            if args.merge:
                base = check_mergeable(paths, source, card, temporary)
                fill = partial(write_merged, paths, source, card, base)
                source = _write_folder(temporary / "merged", fill)
                card = (source / CARD_FILE).read_text(encoding="utf-8")
            url = upload(source, card, repo_id, is_private=args.private, revision=args.revision)
            print(f"uploaded {args.trial or source} in one commit: {url}")
            where = {"url": url, "repo_id": repo_id}
    return Result({"run": paths.folder, "trial_id": trial_id, **where})


def read_card(path: Path) -> str:
    """The card of an adapter.

    Raises:
        SweepAborted: its YAML is not what huggingface_hub reads as a model card.
    """
    fix = f"correct the YAML between the --- lines of {path}"
    try:
        card = path.read_bytes().decode()
        data = ModelCard(card).data
    except Exception as refused:  # yaml and huggingface_hub raise many kinds
        error = f"the metadata of {path} cannot be read: {refused}"
        raise make_redacted_error(error, fix) from None
    _require(data.get("library_name") == "peft", f"{path} does not say library_name: peft", fix)
    return card


def _check_target(source: Path, target: Path) -> None:
    """A folder that does not exist yet or is empty, outside the source."""
    is_free = not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir()))
    _require(
        is_free,
        f"{target} exists and is not an empty folder",
        "choose another folder, or empty this one",
    )
    _require(
        not target.resolve().is_relative_to(source.resolve()),
        f"{target} is inside {source}",
        "choose a folder outside the run",
    )


def _copy_files(source: Path, card: str, folder: Path) -> None:
    for path in list_exported(source):
        shutil.copyfile(path, folder / path.name)
    (folder / CARD_FILE).write_text(card, encoding="utf-8", newline="")


def _write_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """The target, filled; it appears whole or not at all."""
    try:
        with replace_folder(target) as folder:
            fill(folder)
    except OSError as failed:
        raise make_redacted_error(
            f"cannot write {target}: {failed.strerror or failed}",
            "choose a folder on a disk with space that you may write to; for hub: name one with "
            "TMPDIR",
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
        raise make_redacted_error(f"--to {target!r}: {refused}", TARGETS) from None
    _require(repo_id.count("/") == 1, f"--to {target!r} names no user or organisation", TARGETS)
    return repo_id


def _require(holds: bool, error: str, fix: str) -> None:
    if not holds:
        raise make_redacted_error(error, fix)


if __name__ == "__main__":
    run_command(main)
