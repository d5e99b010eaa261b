"""Flags by theme in --help, each once, and values that get back to where they belong."""

import re
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import tyro

from sweeps.checks.run_args import RunArgs
from sweeps.cli import parse
from sweeps.command_line.help_layout import flatten
from sweeps.recipes import samsum
from sweeps.trial import TrialArgs
from tests.sweeps.commands import call
from trainables.config import EngineFlag, FlagGroup, MainFlag

SUPPRESSED = {"recipe", "task", "start_points", "space"}
MOST_NEEDED = {
    *("--model", "--data", "--tiny", "--num-trials", "--max-steps", "--epochs", "--metric"),
    *("--gpus", "--time-budget", "--name", "--resume", "--dry-run", "--wandb"),
}


@dataclass(frozen=True, kw_only=True)
class Heat:
    """How hot."""

    degrees: int = 180
    """Degrees, of
    Celsius."""
    fan: MainFlag[bool] = False
    """Whether air moves."""


@dataclass(frozen=True, kw_only=True)
class Oven:
    """Bakes."""

    heat: EngineFlag[tyro.conf.OmitArgPrefixes[Heat]]
    """Its heat."""
    trays: int = 2
    """Trays to bake."""


def test_values_get_back_to_where_they_belong() -> None:
    default = Oven(heat=Heat(degrees=200))
    assert parse(Oven, [], "bake", default) == default
    given = parse(Oven, ["--degrees", "90", "--fan", "--trays", "3"], "bake", default)
    assert given == Oven(heat=Heat(degrees=90, fan=True), trays=3)
    config = replace(samsum(), tiny=False)
    words = ["--lora-ranks", "4", "--metric", "rouge1", "--seed", "5", "--resume"]
    args = parse(RunArgs, words, "run", RunArgs(config=config))
    space = replace(config.space, lora_ranks=(4,))
    options = replace(config.task_options, metric="rouge1")
    changed = replace(config, space=space, task_options=options, seed=5)
    assert args == RunArgs(config=changed, resume=True)


def test_nearest_group_counts_and_lines_of_a_docstring_are_joined(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(Oven, ["--help"], "bake", Oven(heat=Heat()))
    boxes = _read_boxes(capsys.readouterr().out)
    assert boxes == {"options": ["--fan", "--trays"], "engine and hardware options": ["--degrees"]}
    (degrees,) = [field for field, _ in flatten(Oven)[1] if field.name == "degrees"]
    assert callable(degrees.helptext) and degrees.helptext() == "Degrees, of Celsius."


@pytest.mark.parametrize("cls", [RunArgs, TrialArgs])
def test_every_flag_of_a_sweep_names_its_group(cls: type) -> None:
    flags = flatten(cls)[1]
    assert len(flags) > 50
    hidden = SUPPRESSED | ({"checkpoints"} if cls is TrialArgs else set())
    lacking = {field.name for field, group in flags if group is None} - hidden
    assert not lacking, f"the type of each names a group, e.g. EngineFlag[int]: {lacking}"


@pytest.mark.parametrize("command", ["sweeps.run", "sweeps.trial"])
def test_help_begins_with_what_most_users_need_and_shows_each_flag_once(command: str) -> None:
    boxes = _read_boxes(call(command, "samsum", "--help").stdout)
    themes = [f"{group.value} options" for group in FlagGroup if group is not FlagGroup.MAIN]
    absent = set() if command == "sweeps.run" else {"--resume", "--dry-run"}
    assert list(boxes) == ["options", *themes]
    assert set(boxes["options"]) >= MOST_NEEDED - absent
    assert len(boxes["options"]) <= 14 or command == "sweeps.trial"
    shown = Counter(flag for flags in boxes.values() for flag in flags)
    assert set(shown.values()) == {1}
    cls = RunArgs if command == "sweeps.run" else TrialArgs
    named = {f"--{field.name.replace('_', '-')}" for field, _ in flatten(cls)[1]}
    hidden = {f"--{name.replace('_', '-')}" for name in SUPPRESSED}
    assert set(shown) == named - hidden - ({"--checkpoints"} if cls is TrialArgs else set())


def _read_boxes(text: str) -> dict[str, list[str]]:
    """The flags under each heading."""
    boxes: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"╭?─? ((?:[a-z ]+ )?options)[ ─╮]*", line):
            flags = boxes.setdefault(heading[1], [])
        elif flag := re.match(r"│? {1,2}(--[a-z][a-z-]*)", line):
            flags.append(flag[1])
    return boxes
