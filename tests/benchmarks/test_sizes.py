"""The table of sizes is made from the product's own prediction, and the README shows it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.recipes import samsum
from tests.benchmarks import sizes

README = Path(__file__).resolve().parents[2] / "trainables" / "packing" / "README.md"


def test_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed again after a change: python -m tests.benchmarks.sizes."""
    sizes.main(sizes.Args())
    table = capsys.readouterr().out
    assert table.count("\n") == 2 + len(sizes.list_facts()) > 10
    assert table in README.read_text(encoding="utf-8")


def test_base_that_is_not_quantised_never_stays_in_nf4() -> None:
    config, facts = samsum(), sizes.list_facts()
    settings = replace(config.settings, base="bf16")
    _, _, line = sizes.format_table({"27B": facts["Qwen3.5-27B"]}, settings, 64)
    assert line.startswith("| 27B | no | no | no | 1 bf16* | ") and "NF4" not in line
