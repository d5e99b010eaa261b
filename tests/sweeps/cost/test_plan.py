"""The text of --dry-run, of the bundled sweep."""

import re
from dataclasses import replace

import pytest

from search_spaces.lora import LoraSpace
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.cost import plan
from sweeps.cost.allocation import PROCESS_GIB, find_largest_point
from sweeps.cost.hardware import Hardware
from sweeps.recipes import samsum
from trainables.data.tasks import TASKS
from trainables.models.layer_kinds import ExpertFacts
from trainables.models.model_facts import read_model_facts
from trainables.packing.sizing.solo_memory import predict_solo_gib


@pytest.fixture(scope="module")
def config() -> SweepConfig:
    return samsum(is_tiny=True)


@pytest.fixture(scope="module")
def preflight(config: SweepConfig) -> Preflight:
    task = TASKS[config.task](config.task_options)
    return Preflight(task, task.load(config.data), read_model_facts(config.model), "offline")


def sections_of(text: str) -> dict[str, list[str]]:
    """The lines of each section by its title."""
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line[:14].strip():
            sections[line[:14].strip()] = []
        sections[[*sections][-1]].append(line[14:])
    return sections


def test_plan_says_what_nf4_leaves_out(config: SweepConfig, preflight: Preflight) -> None:
    assert "experts" not in sections_of(plan.describe(config, preflight))
    experts = ExpertFacts(num_experts=128, num_per_token=8, width=768)
    model = replace(
        preflight.model, experts=experts, hidden_size=2048, layer_types=("full_attention",) * 48
    )
    config = replace(config, engine="solo", compute_dtype="bfloat16")
    said = sections_of(plan.describe(config, replace(preflight, model=model)))["experts"]
    text = "29,003.6 M weights in bfloat16 (54.0 GiB), frozen"
    assert said == [f"{text}; bitsandbytes quantises linear layers only"]
    config = replace(config, base="bf16")
    assert sections_of(plan.describe(config, replace(preflight, model=model)))["experts"] == [text]


def test_plan_says_what_would_run(config: SweepConfig, preflight: Preflight) -> None:
    said = sections_of(plan.describe(config, preflight))
    assert said["sweep"][0].startswith(f"{config.name}: {config.num_trials} trials of samsum")
    assert "rougeLsum (max)" in said["sweep"][0] and said["sweep"][0].endswith("seed 0")
    assert said["space"] == str(config.space).splitlines()
    assert said["rungs"] == ["10, 30, 90 steps; at each but the last the best 1/3 go on"]
    assert said["finals"] == [
        "the best 2 with 2 fresh seeds each, 5 runs of 90 steps at most; the best mean on "
        "validation wins"
    ]
    without = sections_of(plan.describe(replace(config, finals=False), preflight))
    assert without["finals"] == ["none: the best trial of the search wins"]
    rows = len(preflight.splits.train)
    assert said["training"] == [f"90 steps of 8 rows = {90 * 8 / rows:.2f} epochs"]
    assert said["rows"][0].startswith(
        f"train {rows:,}, validation {len(preflight.splits.validation):,}"
    )
    assert said["W&B"] == ["offline"]
    assert said["writes"][0].endswith(f"/runs/{config.name}")
    assert {"batch_size 8", "eval_rows 48"} <= set(said["settings"][0].split(", "))


def test_plan_lists_the_start_points_that_lie_inside(
    config: SweepConfig, preflight: Preflight
) -> None:
    said = sections_of(plan.describe(config, preflight))["start points"]
    assert len(said) == len(config.start_points) > 0
    assert said[0].startswith("lora_rank 64, use_rslora True, lora_dropout 0.05, learning_rate ")
    assert said[0].endswith("lora_alpha 32.0")
    narrow = samsum(is_tiny=True).__class__(
        **vars(config) | {"space": LoraSpace(learning_rates=(1e-5, 2e-5))}
    )
    assert sections_of(plan.describe(narrow, preflight))["start points"] == ["none"]
    sets = replace(config.space, target_modules=("q_proj,v_proj", "all"))
    searched = sections_of(plan.describe(replace(config, space=sets), preflight))["start points"]
    assert searched[0].startswith("target_modules q_proj,v_proj, lora_rank 64, use_rslora True")
    partial = replace(config, start_points=({"lora_rank": 8, "learning_rate": 5e-3},))
    said = sections_of(plan.describe(partial, preflight))["start points"]
    assert said == ["lora_rank 8, learning_rate 0.005, the rest drawn"]


def test_plan_says_what_ends_the_search_and_when_its_time_is_estimated(
    config: SweepConfig, preflight: Preflight
) -> None:
    said = sections_of(plan.describe(config, preflight))
    assert said["budget"] == ["as long as the trials take"]
    assert "before the first trial" in said["estimate"][0]
    limited = replace(config, time_budget="2h", gpu_hours=1.5, estimate=False, finals=False)
    said = sections_of(plan.describe(limited, preflight))
    assert said["budget"] == ["2h of wall time, 1.5 GPU-hours, the test included"]
    assert "while it runs" in said["estimate"][0]


def test_plan_says_what_the_base_is(config: SweepConfig, preflight: Preflight) -> None:
    assert sections_of(plan.describe(config, preflight))["base"] == ["in NF4 (QLoRA)"]
    plain = replace(config, base="bf16", compute_dtype="float32")
    (said,) = sections_of(plan.describe(plain, preflight))["base"]
    assert said == "not quantised, in float32 (plain LoRA)"


def test_memory_is_that_of_the_largest_rank(config: SweepConfig, preflight: Preflight) -> None:
    config = replace(config, engine="solo")
    largest = find_largest_point(config, preflight.model)
    assert largest.lora_rank == max(config.space.lora_ranks) == 64
    sets = replace(config.space, target_modules=("mlp", "attention"))
    of_sets = find_largest_point(replace(config, space=sets), preflight.model)
    assert of_sets == replace(largest, target_modules=("mlp",))
    said = sections_of(plan.describe(config, preflight))["memory"][0]
    assert f"{predict_solo_gib(preflight.model, largest, config.settings):.1f} GiB" in said
    assert "rank 64" in said


def test_plan_says_where_micro_batches_of_solo_trials_will_be_halved(
    config: SweepConfig, preflight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, engine="solo", batch_size=64, micro_batch_size=64)

    def memory(gpu_gib: float | None, num_gpus: int = 1) -> list[str]:
        here = Hardware(
            num_cpus=16, num_gpus=num_gpus, gpu_gibs=(gpu_gib,) * num_gpus if gpu_gib else ()
        )
        monkeypatch.setattr(Hardware, "detect", lambda: here)
        return sections_of(plan.describe(config, preflight))["memory"]

    largest = find_largest_point(config, preflight.model)
    whole_gib = predict_solo_gib(preflight.model, largest, config.settings)
    quarter = replace(config.settings, micro_batch_size=16)
    quarter_gib = predict_solo_gib(preflight.model, largest, quarter)
    for enough in (memory(80.0), memory(None), memory(None, num_gpus=0)):
        assert len(enough) == 1 and "64, all rows of 384 tokens" in enough[0]
    assert memory(quarter_gib + PROCESS_GIB + 0.01)[1] == (
        f"its share of a GPU is {quarter_gib + 0.01:.1f} GiB: where that runs out, micro-batches "
        "of 64 rows are halved, to 16 if rows are so long; the effective batch stays"
    )
    assert quarter_gib + 0.01 < whole_gib


def test_plan_says_what_each_kind_of_gpu_holds(
    config: SweepConfig, preflight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(preflight.model, layer_types=("full_attention",) * 28, hidden_size=1024)
    preflight = replace(preflight, model=replace(large, intermediate_size=3072))
    config = replace(config, num_trials=90)

    def told(*gpu_gibs: float) -> dict[str, list[str]]:
        here = Hardware(num_cpus=16, num_gpus=len(gpu_gibs), gpu_gibs=gpu_gibs)
        monkeypatch.setattr(Hardware, "detect", lambda: here)
        return sections_of(plan.describe(config, preflight))

    said = told(1.0, 8.0, 80.0)
    (at_once,) = said["at once"]
    assert re.search(
        r"GPUs in use: 2, \d slots on each of 8\.0 GiB, 2\d slots on each of 80\.0 GiB; "
        r"GPUs that do not hold one trial: 1; a search",
        at_once,
    )
    assert [" GiB a GPU of 8.0 GiB at most" in line for line in said["memory"]] == [True, False]
    same = told(80.0, 80.0)
    assert "GPUs in use: 2, 15 slots each; a search" in same["at once"][0]
    assert len(same["memory"]) == 1 and " GiB a GPU at most" in same["memory"][0]


def test_plan_says_how_many_rows_each_rung_scores(
    config: SweepConfig, preflight: Preflight
) -> None:
    (same,) = sections_of(plan.describe(config, preflight))["scored"]
    assert same.startswith("the first 48 validation rows at every rung; all test rows")
    low = replace(config, low_rung_eval_rows=20)
    (said,) = sections_of(plan.describe(low, preflight))["scored"]
    assert said.startswith("the first 20 validation rows at every rung but the last, 48 there;")


def test_plan_says_which_encoder_scores_the_winner(
    config: SweepConfig, preflight: Preflight
) -> None:
    assert "BERTScore" not in plan.describe(config, preflight)
    asked = replace(config, bertscore="auto", bertscore_encoder="some/encoder", bertscore_layer=7)
    (line,) = sections_of(plan.describe(asked, preflight))["scored"]
    assert line.endswith("BERTScore of the winner by block 7 of some/encoder, if it can be had")
