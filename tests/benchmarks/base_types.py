"""What NF4 costs: the evaluation loss and the metric over a base in NF4 and one not quantised.

For each model and base all seeds train in one pack: the same rows in the same order, the same
hyperparameters, first weights and dropout masks over both bases (in bfloat16 PEFT rounds the first
weights over the one not quantised). All rungs are scored on the same rows; step 0 is the untuned
base. The difference has the 95% interval of a bootstrap over seeds and rows, both in pairs.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

from search_spaces.lora import make_hyperparameters
from sweeps.checks.environment import list_versions, read_git_commit
from sweeps.checks.preflight import load_rows
from sweeps.config import SweepConfig
from sweeps.finals.bootstrap import RunMetric
from sweeps.finals.run_metrics import make_run_metric
from sweeps.recipes import RECIPES
from tests.paired_difference import compare_with_zero
from trainables.config import BaseType, ComputeDtype, Hyperparameters, Metric, TrialConfig
from trainables.data.lengths import fit_splits
from trainables.data.prepared_rows import write_rows
from trainables.data.rows import Row, Scoring
from trainables.data.tasks import TASKS
from trainables.metrics.eval_result import EvalResult, SavedAnswers
from trainables.metrics.registry import format_score
from trainables.models.base_model import get_device
from trainables.models.memory import free_memory, get_gpu_gib, measure_peak_gib
from trainables.models.model_facts import read_model_facts
from trainables.models.tokenizer_file import TokenizerFile
from trainables.packing.service.loading import get_device_name, load_pack
from trainables.packing.sizing.choose import choose_capacity
from trainables.tiny import MODEL_DIR

Runs = dict[int, list[SavedAnswers]]
"""What each seed answered, by step."""
STEPS_AT_ONCE = 8
LOSS = Metric(name="eval_loss", mode="min")


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score and compare; prints a Markdown table, and writes all numbers."""
    args = read_flags(argv)
    results = [compare_bases(args, model) for model in args.models]
    print(format_table(results))
    facts = {
        "device": get_device_name(),
        "commit": read_git_commit(),
        "versions": list_versions(),
        "arguments": {k: v for k, v in vars(args).items() if k not in ("models", "data", "output")},
        "data": Path(args.data).name if args.data else "bundled",
        "results": results,
    }
    if args.output:
        Path(args.output).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def compare_bases(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """Both packs of a model, and their differences by step and score."""
    began_s = time.perf_counter()
    config = make_config(args, model)
    task = TASKS[config.task](config.task_options)
    params = Hyperparameters(**make_hyperparameters(config.start_points[-1]))  # type: ignore[arg-type]
    names = ("learning_rate", "lora_dropout")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    params = replace(params, **given)
    with TemporaryDirectory() as folder:
        config = replace(config, runs_dir=folder)
        splits = fit_splits(TokenizerFile(config.model), load_rows(config, task), config)
        write_rows(config.settings.rows_dir, splits)
        runs, peaks_gib = {}, {}
        for base_type in get_args(BaseType):
            runs[base_type] = train_seeds(replace(config, base=base_type), params, args.seeds)
            peaks_gib[base_type] = round(measure_peak_gib(), 2)
    scores = [
        {"step": step, "score": metric.name, **compare_runs(*sides, metric, splits.scoring)}
        for metric in (LOSS, task.metric)
        for step, *sides in ((step, runs["nf4"][step], runs["bf16"][step]) for step in runs["nf4"])
    ]
    return {
        "model": "/".join(Path(model).parts[-2:]),
        "hyperparameters": vars(params),
        "compute_dtype": config.compute_dtype,
        "batch_size": config.batch_size,
        "train_rows": len(splits.train),
        "scored_rows": len(runs["nf4"][0][0].ids),
        "peak_gib": peaks_gib,
        "seconds": round(time.perf_counter() - began_s, 1),
        "scores": scores,
    }


def make_config(args: argparse.Namespace, model: str) -> SweepConfig:
    """The recipe on this model: with its bundled rows and budget, or on rows that are given."""
    config = RECIPES[args.recipe](args.data is None)
    names = ("data", "max_steps", "batch_size", "eval_rows")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "batch_size" in given:
        given["micro_batch_size"] = given["batch_size"]
    dtype: ComputeDtype = "bfloat16" if get_device().type == "cuda" else "float32"
    given["compute_dtype"] = args.compute_dtype or dtype
    return replace(config, model=model, low_rung_eval_rows=None, **given)


def train_seeds(config: SweepConfig, params: Hyperparameters, num_seeds: int) -> Runs:
    """The answers of the untuned base at step 0, and of every seed at each rung."""
    free_memory()
    settings, facts = config.settings, read_model_facts(config.model)
    capacity = choose_capacity(facts, settings, params.lora_rank, get_gpu_gib(), num_seeds)
    loaded = load_pack(settings, capacity)
    pack, rows = loaded.pack, loaded.select_report_rows(settings.max_steps)
    evaluator = loaded.make_evaluator(rows)
    with pack.hold_adapters([None]) as slots:
        runs: Runs = {0: [save_answers(o, rows) for o in evaluator.evaluate(pack.model, slots)]}
    for first in range(0, num_seeds, capacity.num_slots):
        seeds = range(first, min(first + capacity.num_slots, num_seeds))
        slots, done = pack.free_slots()[: len(seeds)], 0
        for slot, seed in zip(slots, seeds, strict=True):
            seeded = replace(settings, seed=seed)
            trial = TrialConfig(trial_id=str(seed), params=params, settings=seeded, folder=Path())
            pack.join(slot, trial, loaded.examples)
        for rung in settings.rungs:
            while done < rung:
                steps = pack.step(min(STEPS_AT_ONCE, rung - done))
                assert all(step.failed is None for step in steps), steps
                done = steps[-1].step
            results = evaluator.evaluate(pack.model, slots)
            runs.setdefault(rung, []).extend(save_answers(one, rows) for one in results)
            loss = fmean(one.metrics["eval_loss"] for one in results)
            line = f"{config.base}, step {rung}, {len(slots)} seeds: eval_loss {loss:.3f}"
            print(line, file=sys.stderr, flush=True)
        for slot in slots:
            pack.leave(slot)
    return runs


def save_answers(scored: EvalResult, rows: Sequence[Row]) -> SavedAnswers:
    """All that is needed to score any resample of the rows."""
    return SavedAnswers(
        ids=tuple(row.id for row in rows),
        targets=tuple(row.target for row in rows),
        answers=scored.answers,
        row_scores=scored.row_scores,
        references=tuple(row.references for row in rows),
        row_losses=scored.row_losses,
    )


def compare_runs(
    nf4: Sequence[SavedAnswers], bf16: Sequence[SavedAnswers], metric: Metric, scoring: Scoring
) -> dict[str, Any]:
    """A score of every seed over both bases, and how much more it is over NF4."""
    sides = [[make_run_metric(run, metric, scoring) for run in runs] for runs in (nf4, bf16)]
    num_rows = len(nf4[0].ids)
    differences = [_subtract_metrics(*pair) for pair in zip(*sides, strict=True)]
    comparison, interval = compare_with_zero(differences, num_rows)
    values = [[round(float(run(np.ones((1, num_rows)))[0]), 4) for run in runs] for runs in sides]
    return {
        "nf4": values[0],
        "bf16": values[1],
        "difference": round(comparison.means[0], 4),
        "interval": [round(bound, 4) for bound in interval],
    }


def _subtract_metrics(one: RunMetric, other: RunMetric) -> RunMetric:
    return lambda drawn_BS: one(drawn_BS) - other(drawn_BS)


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """A row a model, score and step, in Markdown: means over the seeds."""
    lines = [
        "| model | score | step | NF4 | not quantised | NF4 - not quantised | 95% interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for one in result["scores"]:
            name = one["score"]
            means = [format_score(name, fmean(one[base])) for base in get_args(BaseType)]
            differences = [one["difference"], *one["interval"]]
            more, low, high = (f"{number:+.3f}" for number in differences)
            cells = [result["model"], name, str(one["step"]), *means, more, f"{low} to {high}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.base_types", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "models", nargs="*", default=[str(MODEL_DIR)], help="folders of Qwen models; else bundled"
    )
    parser.add_argument("--recipe", choices=[*RECIPES], default="samsum")
    parser.add_argument("--data", help="rows of the recipe's kind, with its full budget; else tiny")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--eval-rows", type=int, help="rows that are scored, else the recipe's")
    parser.add_argument("--max-steps", type=int, help="else the recipe's")
    parser.add_argument("--batch-size", type=int, help="else the recipe's")
    parser.add_argument("--learning-rate", type=float, help="else the recipe's last start point's")
    parser.add_argument("--lora-dropout", type=float, help="else the start point's")
    parser.add_argument(
        "--compute-dtype", choices=get_args(ComputeDtype), help="else bfloat16, on a CPU float32"
    )
    parser.add_argument("--output", help="JSON file for all results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
