"""What noisy copies of few training rows are worth: the tweets with and without them, by seeds.

For every number of rows, all seeds train with and without copies in one pack: the same rows, steps
and hyperparameters. A seed draws the rows, the noise, the adapter and the order. All are scored on
the same rows, of which none has a training row's text. The difference has the 95% interval of a
bootstrap over seeds and scored rows, both in pairs.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search_spaces.lora import make_hyperparameters
from sweeps.checks.environment import read_git_commit
from sweeps.config import SweepConfig
from sweeps.finals.bootstrap import make_mean_metric
from sweeps.recipes import turkish_tweets
from tests.paired_difference import compare_with_zero
from trainables.config import Hyperparameters, TaskOptions, TrialConfig
from trainables.data.augmentation import augment
from trainables.data.rows import Row, Splits, select_fixed_slice
from trainables.data.stratified import make_near_key
from trainables.data.tasks import TASKS
from trainables.data.tokens import Example, encode_training_rows
from trainables.models.base_model import get_device, load_tokenizer
from trainables.models.memory import get_gpu_gib
from trainables.models.model_facts import read_model_facts
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.loading import get_device_name, make_pack
from trainables.packing.sizing.choose import choose_capacity

Scores = tuple[float, ...]
"""100 or 0 a scored row."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score and compare; prints a JSON line a number of rows, and writes all of them."""
    args = read_flags(argv)
    began_s = time.perf_counter()
    config = make_config(args)
    splits, pool = divide_rows(config, args.eval_rows)
    bench = Bench(config, splits, args.seeds * (1 + len(args.copies)), args.learning_rate)
    noise = args.augment_noise
    options = {n: TaskOptions(augment_copies=n, augment_noise=noise) for n in args.copies}
    results = []
    for size in args.sizes:
        wanted = {}
        for seed in range(args.seeds):
            train = tuple(random.Random(f"{size} {seed}").sample(pool, size))
            plain = replace(splits, train=train)
            wanted[0, seed] = train
            wanted |= {(n, seed): augment(plain, o, seed).train for n, o in options.items()}
        scores = bench.train(wanted)
        for num_copies in args.copies:
            sides = [[scores[n, seed] for seed in range(args.seeds)] for n in (num_copies, 0)]
            result = {
                "rows": size,
                "copies": num_copies,
                "rows_with_copies": [len(wanted[num_copies, s]) for s in range(args.seeds)],
                **compare_sides(*sides),
            }
            print(json.dumps(result), flush=True)
            results.append(result)
    most_common = Counter(row.target for row in splits.validation).most_common(1)[0][1]
    facts = {
        "model": Path(config.model).name,
        "data": Path(str(config.data)).name,
        "device": get_device_name(),
        "commit": read_git_commit(),
        "arguments": {name: value for name, value in vars(args).items() if name != "output"},
        "hyperparameters": vars(bench.params),
        "max_steps": config.max_steps,
        "batch_size": config.batch_size,
        "scored_rows": len(splits.validation),
        "majority": round(100 * most_common / len(splits.validation), 2),
        "seconds": round(time.perf_counter() - began_s, 1),
        "results": results,
    }
    if args.output:
        Path(args.output).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def make_config(args: argparse.Namespace) -> SweepConfig:
    """The tweets' recipe, with one report at the end."""
    config = turkish_tweets(is_tiny=args.model is None)
    changes = {name: getattr(args, name) for name in ("model", "data", "max_steps", "batch_size")}
    given = {name: value for name, value in changes.items() if value is not None}
    if "batch_size" in given:
        given["micro_batch_size"] = given["batch_size"]
    if get_device().type == "cpu":
        given["compute_dtype"] = "float32"
    return replace(config, num_rungs=1, eval_rows=args.eval_rows, **given)


def divide_rows(config: SweepConfig, num_scored: int) -> tuple[Splits, list[Row]]:
    """The rows that are scored, as validation, and those that may be trained on."""
    splits = TASKS[config.task](config.task_options).load(config.data)
    rows = [*splits.train, *splits.validation, *splits.test]
    scored = select_fixed_slice(rows, num_scored)
    texts = {make_near_key(row.prompt) for row in scored}
    pool = [row for row in rows if make_near_key(row.prompt) not in texts]
    return replace(splits, train=(), validation=tuple(scored), test=()), pool


class Bench:
    """One pack, and what scores its slots."""

    def __init__(
        self, config: SweepConfig, splits: Splits, num_slots: int, learning_rate: float | None
    ) -> None:
        self._settings = settings = config.settings
        self._tokenizer = load_tokenizer(settings.model)
        params = Hyperparameters(**make_hyperparameters(config.start_points[-1]))
        self.params = replace(params, learning_rate=learning_rate or params.learning_rate)
        facts, rank = read_model_facts(settings.model), self.params.lora_rank
        capacity = choose_capacity(facts, settings, rank, get_gpu_gib(), num_slots)
        self._pack = make_pack(settings, capacity)
        self._evaluator = PackEvaluator(
            self._tokenizer,
            splits.validation,
            splits.scoring,
            settings,
            max_tokens=capacity.eval_tokens,
            is_graphed=get_device().type == "cuda",
            state_positions=self._pack.model.state_positions,
        )

    def train(self, wanted: dict[tuple[int, int], Sequence[Row]]) -> dict[tuple[int, int], Scores]:
        """The scores of a training on each of these rows; the key's second is its seed."""
        scores: dict[tuple[int, int], Scores] = {}
        most = len(self._pack.free_slots())
        for first in range(0, len(wanted), most):
            keys = list(wanted)[first : first + most]
            slots = self._pack.free_slots()[: len(keys)]
            for slot, key in zip(slots, keys, strict=True):
                settings = replace(self._settings, seed=key[1])
                trial = TrialConfig(
                    trial_id=str(key), params=self.params, settings=settings, folder=Path()
                )
                self._pack.join(slot, trial, self._encode(wanted[key]))
            while steps := self._pack.step(8):
                failed = [result.failed for result in steps if result.failed is not None]
                assert not failed, failed
            results = self._evaluator.evaluate(self._pack.model, slots)
            for slot, key, result in zip(slots, keys, results, strict=True):
                scores[key] = tuple(result.row_scores["accuracy"])
                self._pack.leave(slot)
        return scores

    def _encode(self, rows: Sequence[Row]) -> list[Example]:
        most, room = self._settings.max_length_tokens, self._settings.max_new_tokens
        return encode_training_rows(self._tokenizer, rows, most, room)


def compare_sides(with_copies: Sequence[Scores], plain: Sequence[Scores]) -> dict[str, object]:
    """Both sides' accuracies by seed, and what copies add, with its interval."""
    gains = [np.subtract(*pair) for pair in zip(with_copies, plain, strict=True)]
    comparison, interval = compare_with_zero(list(map(make_mean_metric, gains)), len(plain[0]))
    return {
        "plain": [round(float(np.mean(run)), 2) for run in plain],
        "with_copies": [round(float(np.mean(run)), 2) for run in with_copies],
        "gain": round(comparison.means[0], 2),
        "interval": [round(bound, 2) for bound in interval],
        "probability_better": round(comparison.probabilities[0], 3),
    }


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.augmentation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", help="folder of a Qwen model; else the bundled one")
    parser.add_argument("--data", help="file with the columns Tweets and Duygu; else bundled rows")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200], help="training rows")
    parser.add_argument("--copies", type=int, nargs="+", default=[4], help="noisy copies a row")
    parser.add_argument("--augment-noise", type=float, default=0.1, help="share of words changed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--eval-rows", type=int, default=300, help="rows that are scored")
    parser.add_argument("--max-steps", type=int, help="else the recipe's")
    parser.add_argument("--batch-size", type=int, help="else the recipe's")
    parser.add_argument("--learning-rate", type=float, help="else the recipe's last start point's")
    parser.add_argument("--output", help="JSON file for all results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
