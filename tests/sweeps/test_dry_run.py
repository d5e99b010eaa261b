"""--dry-run tells what a sweep would do, and writes nothing at all."""

import json
import re
from pathlib import Path

import pytest

from tests.sweeps.commands import PROJECT, TINY, Ended, call, start, tree


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The plan of the tiny sweep, which left its working folder and home empty."""
    folder = tmp_path_factory.mktemp("plan")
    project = _listing()
    ended = start("sweeps.run", "samsum", "--tiny", "--dry-run", "--name", "mine", folder=folder)
    assert tree(folder) == {}
    assert _listing() == project
    return ended


def _listing() -> list[str]:
    """The project's top level, with what lies in its runs folder."""
    places = (PROJECT, PROJECT / "runs")
    return [str(path) for place in places for path in sorted(place.glob("[!.]*"))]


def test_plan_is_all_that_is_printed(planned: Ended) -> None:
    assert (planned.code, planned.stderr) == (0, "")


@pytest.mark.parametrize(
    "line",
    [
        r"sweep +mine: 12 trials of samsum, ranked by rougeLsum \(max\) on validation, seed 0",
        r"space +learning_rate in \[0\.0\d+, 0\.0\d+\], log scale",
        r" +lora_rank in \{4, 8, 16, 64\}",
        r"start points +lora_rank 64, use_rslora True, .*lora_alpha 32\.0",
        r"rungs +10, 30, 90 steps; at each but the last the best 1/3 go on",
        r"training +90 steps of 8 rows = 0\.56 epochs",
        r"settings .*eval_rows 48.*",
        r"model .*trainables/tiny/model: qwen3, 2\.\d M parameters, 4 layers, hidden 256, .*",
        r"engine +packed: .*",
        r"memory +not predicted without a GPU",
        r"at once +4 trials of the search, 4 of the finals, on this machine, 4 slots each; .*",
        r"W&B +offline",
        r"writes +.*/runs/mine",
    ],
)
def test_plan_tells(line: str, planned: Ended) -> None:
    assert re.search(rf"^{line}$", planned.stdout, re.MULTILINE), planned.stdout


def test_plan_is_json_too(planned: Ended, few_rows: None, own_world: None) -> None:
    told = json.loads(call("sweeps.run", "samsum", "--tiny", "--dry-run", "--json").stdout)
    assert told["config"]["num_trials"] == 12
    titles = re.findall(r"^(\S.{12}) ", planned.stdout, re.MULTILINE)
    assert list(told["plan"]) == [title.strip() for title in titles]
    assert told["plan"]["rungs"].startswith("10, 30, 90 steps")


def test_plan_counts_the_rows_of_the_files(planned: Ended) -> None:
    rows = [
        f"{split} {len((TINY / 'samsum' / f'{split}.jsonl').read_text().splitlines()):,}"
        for split in ("train", "validation", "test")
    ]
    assert re.search(rf"^rows +{', '.join(rows)}", planned.stdout, re.MULTILINE)


def test_plan_has_a_title_for_every_paragraph(planned: Ended) -> None:
    titles = [line[:14].strip() for line in planned.stdout.splitlines() if line[0] != " "]
    assert titles == [
        "sweep",
        "space",
        "start points",
        "rungs",
        "finals",
        "training",
        "settings",
        "rows",
        "scored",
        "model",
        "base",
        "engine",
        "memory",
        "at once",
        "budget",
        "estimate",
        "W&B",
        "writes",
    ]


def test_plan_follows_its_flags(tmp_path: Path) -> None:
    flags = [
        "--num-trials",
        "7",
        "--max-steps",
        "20",
        "--num-rungs",
        "2",
        "--lora-ranks",
        "8",
        "--seed",
        "3",
        "--runs-dir",
        "elsewhere",
        "--wandb",
        "disabled",
    ]
    ended = start("sweeps.run", "samsum", "--tiny", "--dry-run", *flags, folder=tmp_path)
    assert ended.code == 0
    for part in ("7 trials", "seed 3", "7, 20 steps", "lora_rank in {8}", "disabled", "elsewhere/"):
        assert part in ended.stdout
    assert "start points  none" in ended.stdout
    assert tree(tmp_path) == {}
