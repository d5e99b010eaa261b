"""The folder of a whole sweep of many trials, without any training: for tests of its report."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from search_spaces.lora import LoraSpace
from sweeps.config import SweepConfig, to_json
from sweeps.finals import predictions
from sweeps.finals import verdict as verdicts
from sweeps.finals.verdict import Finalist, Verdict
from sweeps.records.events import make_params_fields, make_report_fields
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import replay_all
from tests.sweeps.invented_sweep import make_config, make_report
from trainables.config import Hyperparameters, Metric, TaskOptions
from trainables.data.prepared_rows import write_rows
from trainables.data.rows import Row, Scoring, Splits
from trainables.metrics.eval_result import EvalResult

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=hurt=1>&\u2028<!--"
RUNGS = (10, 30, 90)
NUM_SLOTS = 8
NUM_ROWS = 40
SPACE = LoraSpace(learning_rates=(3e-5, 3e-3), rsloras=(False, True))
BEGAN = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
LABELS = ("neutral", "negative", "positive")


def write_run(
    folder: Path,
    num_trials: int = 64,
    *,
    labels: Sequence[str] = (),
    text: str = "",
    is_ended: bool = True,
    seed: int = 0,
) -> RunPaths:
    """A run that looks like one: scores follow from the hyperparameters, and ASHA has stopped most.

    Args:
        labels: of a classifier; none of a summariser.
        text: stands in each text of data, model and log.
        is_ended: whether the finals and the test are over.
    """
    paths, draw = RunPaths(folder), random.Random(seed)
    folder.mkdir(parents=True)
    metric = Metric(name="accuracy" if labels else "rougeLsum")
    config = _configure(folder, num_trials, labels)
    events = _Events()
    scores = _search(events, config, metric, draw, num_trials, text)
    winners = sorted(scores, key=lambda trial: -scores[trial])[:4]
    if is_ended:
        _write_rows(paths, labels, text)
        _train_finals(events, winners, scores, metric, draw)
        _test(events, paths, config, winners[0], metric, draw, labels, text)
        events.add("sweep_ended", **_make_cost())
    paths.events.write_text("".join(json.dumps(event) + "\n" for event in events.all))
    record = _make_record(config, metric, labels, text)
    if is_ended:
        title = "always saying 'neutral'" if labels else "the input's first sentence"
        base = {split: {metric.name: 31.25} for split in ("validation", "test")}
        record["baselines"] = {"the untuned base": base, title: base}
        record["lead_intervals"] = {
            "the untuned base": {"test": [6.5, 34.0]},
            title: {"test": [-1.25, 14.0]},
        }
        record["doubts"] = [f"the winner may be no better than {title} {text}"]
        _write_finals(paths, events.all, winners, metric)
    paths.sweep_json.write_text(json.dumps(record))
    return paths


class _Events:
    """A log whose times are made up."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.now = BEGAN
        self.add("sweep_started", name="many")

    def add(self, kind: str, **facts: object) -> None:
        self.all.append(
            {"time": self.now.isoformat(timespec="milliseconds"), "kind": kind, **facts}
        )


def _configure(folder: Path, num_trials: int, labels: Sequence[str]) -> SweepConfig:
    options = (
        TaskOptions(label_names=tuple(f"{n}={n}" for n in range(len(labels)))) if labels else None
    )
    return make_config(
        runs_dir=str(folder.parent),
        name=folder.name,
        max_steps=RUNGS[-1],
        space=SPACE,
        start_points=(),
        num_trials=num_trials,
        finals=True,
        **(
            {"recipe": "turkish_tweets", "task": "turkish_tweets", "task_options": options}
            if labels
            else {}
        ),
    )


def _draw_params(draw: random.Random) -> Hyperparameters:
    low, high = map(math.log10, SPACE.learning_rates)
    rank = draw.choice(SPACE.lora_ranks)
    return Hyperparameters(
        lora_rank=rank,
        lora_alpha=rank * draw.choice(SPACE.alphas_over_rank),
        lora_dropout=draw.choice(SPACE.lora_dropouts),
        learning_rate=10 ** draw.uniform(low, high),
        use_rslora=draw.choice(SPACE.rsloras),
    )


def _search(
    events: _Events,
    config: SweepConfig,
    metric: Metric,
    draw: random.Random,
    num_trials: int,
    text: str,
) -> dict[str, float]:
    """Trials in cohorts of NUM_SLOTS, of which a third goes on at each rung; the last scores."""
    ended: dict[str, float] = {}
    for first in range(0, num_trials, NUM_SLOTS):
        living = {}
        for slot, number in enumerate(range(first, min(first + NUM_SLOTS, num_trials))):
            trial_id, params = f"t{number:04d}", _draw_params(draw)
            events.add(
                "trial_started", trial_id=trial_id, number=number, params=make_params_fields(params)
            )
            worth = 42 - 9 * (math.log10(params.learning_rate) + 3.2) ** 2
            worth += math.log2(params.lora_rank) * 0.4 + draw.gauss(0, 0.8)
            living[trial_id] = (slot, worth)
        entered = events.now.timestamp()
        if first == NUM_SLOTS:
            name = next(iter(living))
            del living[name]
            reason = f"non-finite loss at step 3 {text}"
            events.add("trial_ended", trial_id=name, status="failed", reason=reason)
        for rung in RUNGS:
            events.now += timedelta(seconds=rung * 1.5)
            for trial_id, (slot, worth) in living.items():
                value = worth * (1 - 4 / (rung + 8)) + draw.gauss(0, 0.3)
                report = _place(make_report(trial_id, rung, value), metric, slot, entered)
                events.add("report", **make_report_fields(report))
                ended[trial_id] = value
            kept = sorted(living, key=lambda t: -living[t][1])[: max(2, len(living) // 3)]
            for trial_id in [t for t in living if t not in kept or rung == RUNGS[-1]]:
                is_end = rung == RUNGS[-1]
                events.add(
                    "trial_ended",
                    trial_id=trial_id,
                    status="completed" if is_end else "stopped",
                    reason="" if is_end else f"place 5 of 8 at step {rung} {text}",
                )
            for trial_id in living.keys() - set(kept):
                ended.pop(trial_id)
            living = {trial_id: living[trial_id] for trial_id in kept}
    return ended


def _place(report: Any, metric: Metric, slot: int, entered: float) -> Any:
    """The report by the run's metric, made in a slot of one pack."""
    (value,) = report.metrics.values()
    return replace(
        report,
        metrics={metric.name: value, "eval_loss": 3 - value / 40},
        gpu_seconds=report.step * 0.2,
        pack="abcd1234",
        slot=slot,
        entered=entered,
        device="NVIDIA H200",
    )


def _train_finals(
    events: _Events,
    winners: Sequence[str],
    scores: dict[str, float],
    metric: Metric,
    draw: random.Random,
) -> None:
    runs = [
        {"trial_id": f"f{of[1:]}s{seed}", "of": of, "seed": seed}
        for of in winners
        for seed in (1, 2, 3)
    ]
    events.add("finals_started", finalists=winners, baseline=None, runs=runs)
    entered = events.now.timestamp()
    events.now += timedelta(seconds=200)
    for slot, run in enumerate(runs):
        value = scores[run["of"]] + draw.gauss(-0.2, 0.5)
        report = _place(
            make_report(run["trial_id"], RUNGS[-1], value), metric, slot % NUM_SLOTS, entered
        )
        events.add("report", **make_report_fields(report))
        events.add("trial_ended", trial_id=run["trial_id"], status="completed", reason="")


def _write_rows(paths: RunPaths, labels: Sequence[str], text: str) -> None:
    def make(split: str) -> tuple[Row, ...]:
        return tuple(
            Row(
                id=f"{split}-{n}{text}",
                prompt=f"Summarise this conversation: {text}\nAda: Row {n}?\nBo: Yes, at six.",
                target=labels[n % len(labels)] if labels else f"Ada asks about row {n}. {text}",
            )
            for n in range(NUM_ROWS)
        )

    scoring = Scoring(kind="classify", labels=tuple(labels)) if labels else Scoring()
    splits = Splits(
        train=make("train"),
        validation=make("validation"),
        test=make("test"),
        counts={},
        scoring=scoring,
        prompt_template="Summarise this conversation: {dialogue}",
    )
    write_rows(paths.rows, splits)


def _test(
    events: _Events,
    paths: RunPaths,
    config: SweepConfig,
    of: str,
    metric: Metric,
    draw: random.Random,
    labels: Sequence[str],
    text: str,
) -> None:
    from trainables.data.prepared_rows import read_rows
    from trainables.data.rows import select_fixed_slice

    splits, run_id = read_rows(paths.rows), f"f{of[1:]}s1"
    rows, results = select_fixed_slice(splits.test, NUM_ROWS), {}
    for name, share in ((run_id, 0.8), ("test_base", 0.35)):
        rights = [draw.random() < share for _ in rows]
        answers = [
            row.target if right else (draw.choice(labels) if labels else f"Row. {text}")
            for row, right in zip(rows, rights, strict=True)
        ]
        row_scores = {metric.name: tuple(100.0 if right else 20.0 for right in rights)}
        value = sum(row_scores[metric.name]) / NUM_ROWS
        results[name] = EvalResult(
            metrics={metric.name: value, "eval_loss": 1.5},
            answers=tuple(answers),
            row_scores=row_scores,
        )
    predictions.save(paths, splits, config.settings, results)
    metrics = {name: result.metrics for name, result in results.items()}
    scores = {"test": metrics[run_id], "test_base": metrics["test_base"]}
    scores["validation"] = {metric.name: 41.5, "eval_loss": 1.4}
    scores["validation_base"] = {metric.name: 30.25, "eval_loss": 2.5}
    events.now += timedelta(seconds=20)
    events.add("final_scores", trial_id=run_id, scores=scores, runs={run_id: scores["test"]})
    seconds = {"load": 20.0, "train": 700.0, "evaluate": 400.0, "idle": 30.0, "test": 20.0}
    ledger = {
        "device": "NVIDIA H200",
        "started": BEGAN.timestamp(),
        "seconds": seconds,
        "shares": {},
    }
    ledger |= {"trial_steps": 2000, "real_tokens": 980, "computed_tokens": 1000, "peak_gib": 61.5}
    events.add("pack_ended", pack=0, **ledger)


def _write_finals(
    paths: RunPaths, events: list[dict[str, Any]], winners: Sequence[str], metric: Metric
) -> None:
    by_id = {record.trial_id: record for record in replay_all(events)}
    finalists = [
        Finalist(
            trial_id=trial_id,
            params=by_id[trial_id].params,
            metric=metric,
            runs=tuple(by_id[f"f{trial_id[1:]}s{seed}"] for seed in (1, 2, 3)),
            probability_best=0.4,
        )
        for trial_id in winners
    ]
    finalists.sort(key=lambda finalist: -(finalist.mean or 0))
    verdict = Verdict(
        metric=metric, finalists=tuple(finalists), lead=0.4, interval=(-0.3, 1.1), num_rows=NUM_ROWS
    )
    verdicts.write(verdict, paths)


def _make_cost() -> dict[str, Any]:
    overhead = {"load": 20.0, "probe": 5.0, "idle": 30.0, "test": 20.0, "other": 9.0}
    gpu_time = {"num_packs": 1, "search_s": 800.0, "finals_s": 300.0, "overhead_s": overhead}
    gpu_time |= {"saved_by_asha_s": 1900.0, "full_trial_s": 40.0, "alone_s": None}
    actual = {"wall_s": 1184.0, "gpu_hours": 0.329, "memory_gib": 61.5}
    return {"predicted": {}, "actual": actual, "gpu_time": gpu_time}


def _make_record(
    config: SweepConfig, metric: Metric, labels: Sequence[str], text: str
) -> dict[str, Any]:
    return {
        "sweep_id": "id-1",
        "name": config.name,
        "config": to_json(config),
        "metric": asdict(metric) | {"fingerprint": "f1"},
        "rungs": list(RUNGS),
        "rows": {"train": 14731, "validation": 818, "test": 819, f"empty dialogue {text}": 3},
        "added": {},
        "digests": {"rows": {"train": {"num": 14731, "sha256": "a1" * 32}}},
        "read": [f"prompts cut to 512 tokens: 3 of train {text}"],
        "prompt": f"Summarise this conversation: {{dialogue}} {text}",
        "labels": list(labels),
        "dataset": "knkarthick/samsum",
        "versions": {"torch": "2.13.0"},
        "git_commit": "abc",
    }
