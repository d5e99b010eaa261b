"""Every benchmark is a command that runs from a clean checkout and tells its flags."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "augmentation",
    "base_types",
    "card_answers",
    "label_scoring",
    "network_cut",
    "packing",
    "search_quality",
    "search_quality table",
    "search_quality replay",
    "sizes",
    "tiny_makers",
    "tiny_makers model",
    "torture",
    "trackers",
    "wikipedia_pt_builder",
)


def test_every_folder_and_script_is_a_command() -> None:
    here = Path(__file__).parent
    names = {path.parent.name for path in here.glob("*/__init__.py")}
    names |= {path.stem for path in here.glob("*.py") if not path.name.startswith("test_")}
    assert names == {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_help_is_told(command: str) -> None:
    words = ["-m", f"tests.benchmarks.{command.split()[0]}", *command.split()[1:], "--help"]
    ended = subprocess.run(
        [sys.executable, *words], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert f"usage: python -m tests.benchmarks.{command}" in ended.stdout
