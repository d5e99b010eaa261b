"""Every benchmark is a command that runs from a clean checkout and tells its flags."""

import runpy
import sys
from pathlib import Path

import pytest

COMMANDS = (
    "augmentation",
    "base_types",
    "card_answers",
    "label_scoring",
    "mistakes",
    "network_cut",
    "packing",
    "scale",
    "scaling",
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
def test_help_is_told(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: most of the commands load torch, which takes each of its own seconds."""
    name, *words = command.split()
    monkeypatch.setattr(sys, "argv", [name, *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
    assert ended.value.code == 0
    assert f"usage: python -m tests.benchmarks.{command}" in capsys.readouterr().out
