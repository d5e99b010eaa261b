"""Several runs on one page: what each came to, and whether their scores compare at all."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.publish.card_facts import shorten
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import plots
from sweeps.publish.report.plots import Plot
from sweeps.publish.report.result import describe_winner, show_interval
from sweeps.publish.tables import Table
from sweeps.records.run import find_time
from trainables.data.rows import SPLITS
from trainables.metrics.registry import format_score

DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 4], [1, 3])
"""Patterns of lines, so that runs differ by more than their colour."""
COLOURS = [f"var(--{name})" for name in ("blue", "orange", "green", "accent", "red", "ink-2")]


def compare_runs(runs: Sequence[SweepRun]) -> dict[str, Any]:
    """The contents of the page of several runs, by the names that the template has for them."""
    names = _name_runs(runs)
    shared = dict(zip(names, runs, strict=True))
    columns = list(dict.fromkeys(name for run in runs for name, _ in describe_winner(run)))
    winners = [
        [name, *(winner.get(column, "") for column in columns)]
        for name, run in shared.items()
        for winner in [dict(describe_winner(run))]
    ]
    doubts = [
        f"{name}: {doubt}"
        for name, run in shared.items()
        for doubt in (run.outcome.doubts if run.outcome else ())
    ]
    metrics = list(dict.fromkeys(run.metric.name for run in runs))
    drawn = [
        plot
        for number, metric in enumerate(metrics)
        for of_metric in [{name: r for name, r in shared.items() if r.metric.name == metric}]
        for make in (_plot_scores, _plot_progress)
        if (plot := make(metric, of_metric, number)) is not None
    ]
    return {
        "name": f"Comparison of {len(runs)} sweeps",
        "state": "",
        "lines": [", ".join(names)],
        "notes": [*_find_differences(shared), *doubts],
        "results": _list_results(shared),
        "plots": drawn,
        "winners": Table("Hyperparameters of each winner", ("sweep", *columns), winners),
    }


def _name_runs(runs: Sequence[SweepRun]) -> list[str]:
    """The runs' names; those of several with the same one have a number too."""
    names = [run.name for run in runs]
    counts, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = name if counts[name] == 1 else f"{name} ({seen[name]})"
    return names


def _find_differences(runs: dict[str, SweepRun]) -> list[str]:
    """What keeps scores from being compared: another metric, other settings of it, other rows."""

    def digests(run: SweepRun) -> dict[str, object]:
        rows = run.record.get("digests", {}).get("rows", {})
        metric = {"the metric or its settings": run.record["metric"].get("fingerprint")}
        return {**metric, **{f"the {name} rows": rows.get(name) for name in SPLITS[1:]}}

    (first, known), *others = ((name, digests(run)) for name, run in runs.items())
    differences = []
    for name, own in others:
        if differing := [what for what, digest in own.items() if digest != known[what]]:
            differences.append(
                f"{', '.join(differing)} of {name} differ from those of {first}, so their scores "
                "do not compare"
            )
    return differences


def _list_results(runs: dict[str, SweepRun]) -> Table:
    rows = []
    for name, run in runs.items():
        metric, outcome = run.metric.name, run.outcome
        scores = outcome.scores if outcome else {}
        test, base = (scores.get(of, {}).get(metric) for of in ("test", "test_base"))
        both = [test, base]
        cost = run.last_turn.get("actual")
        mean = run.finals.winner.mean if run.finals and run.finals.winner else None
        interval = run.score_interval
        rows.append(
            [
                *(name, run.state, shorten(run.config.model), metric, str(len(run.trials))),
                outcome.winner.trial_id if outcome else "",
                format_score(metric, mean, both),
                format_score(metric, test, both),
                show_interval(metric, interval, both).removeprefix("95% interval ")
                if interval
                else "",
                format_score(metric, base, both),
                f"{cost['gpu_hours']:.3g}" if cost else "",
                format_duration(cost["wall_s"]) if cost else "",
            ]
        )
    columns = (
        *("sweep", "state", "base", "metric", "trials", "winner", "mean of finals", "test"),
        *("95% interval", "untuned base", "GPU-hours", "time"),
    )
    return Table("What each sweep came to", columns, rows)


def _plot_scores(metric: str, runs: dict[str, SweepRun], number: int) -> Plot | None:
    """Each winner on test with its interval, beside the untuned base."""
    values = []
    for name, run in runs.items():
        scores = run.outcome.scores if run.outcome else {}
        for what, of in (("winner", "test"), ("untuned base", "test_base")):
            value = scores.get(of, {}).get(metric)
            if value is not None:
                low, high = (run.score_interval if what == "winner" else None) or (value, value)
                shown = format_score(metric, value)
                one = {"run": name, "what": what, "score": value, "shown": shown}
                values.append({**one, "low": low, "high": high})
    if not values:
        return None
    x, y, kinds = (
        plots.encode_score(metric),
        plots.encode_category("run", list(runs)),
        ["winner", "untuned base"],
    )
    points = {
        "y": y,
        "x": x,
        "shape": plots.encode_name("what", kinds, ["circle", "square"]),
        "fill": plots.encode_name("what", kinds, ["var(--accent)", "var(--ink-2)"]),
        "tooltip": plots.list_tooltip("run", "what", shown=metric),
    }
    layers = [plots.draw_interval(x, y, width=5), plots.draw_points(points, size=90, opacity=1)]
    return Plot(
        key=f"scores{number}",
        title=f"{metric} on test",
        says=(
            f"{metric} of each sweep's winner on test, with the 95% interval over rows as a bar, "
            "and of its untuned base. The table has the numbers."
        ),
        spec=plots.make_spec(values, height=40 * len(runs), layer=layers),
        height=90 + 40 * len(runs),
    )


def _plot_progress(metric: str, runs: dict[str, SweepRun], number: int) -> Plot | None:
    """The best score at the last rung by the time since a sweep began."""
    values: list[dict[str, Any]] = []
    for name, run in runs.items():
        searched = {trial.trial_id for trial in run.trials if trial.status != "failed"}
        best: float | None = None
        for event in run.events:
            is_last = event["kind"] == "report" and event["step"] == run.config.rungs[-1]
            if not is_last or event["trial_id"] not in searched or run.began is None:
                continue
            value = float(event["metrics"][metric])
            best = value if best is None else run.metric.choose_best((best, value))
            passed = find_time(event) - run.began
            shown = format_score(metric, best)
            at = {"run": name, "minutes": passed.total_seconds() / 60}
            values.append({**at, "score": best, "shown": shown})
        if best is not None and run.began is not None and run.last_event_time is not None:
            until = {"minutes": (run.last_event_time - run.began).total_seconds() / 60}
            values.append({**values[-1], **until})
    if not values:
        return None
    names = list(runs)
    encoding = {
        "x": plots.encode_number("minutes", "minutes since the start"),
        "y": plots.encode_score(metric),
        "stroke": plots.encode_name("run", names, list(islice(cycle(COLOURS), len(names)))),
        "strokeDash": plots.encode_name("run", names, list(islice(cycle(DASHES), len(names)))),
        "tooltip": plots.list_tooltip("run", shown=metric),
    }
    lines = plots.draw("line", encoding, interpolate="step-after", strokeWidth=2.2)
    return Plot(
        key=f"progress{number}",
        title=f"Best {metric} by time",
        says=(
            f"The best {metric} on validation of a trial of the search at the last rung, by the "
            "time since each sweep began, pauses included."
        ),
        spec=plots.make_spec(values, height=280, **lines),
        height=340,
    )
