"""What the finals came to, in words: for the summary and for the model card."""

from sweeps.finals.verdict import Finalist, Verdict


def write_sentences(verdict: Verdict) -> list[str]:
    """The winner, its lead and how sure that is, which adapter is kept, and what went amiss."""
    winner, best_run = verdict.winner, verdict.best_run
    if winner is None or best_run is None:
        return [
            "no run of the finals reached the end: the best trial of the search stands",
            *verdict.notes,
        ]
    name, num = verdict.metric.name, len(winner.completed)
    seeds = f"{num} fresh seeds" if num > 1 else "one fresh seed"
    spread = "" if winner.deviation is None else f" +- {winner.deviation:.2f}"
    mean = f"{name} {winner.mean:.2f}{spread} over {seeds}"
    lines = [f"winner of the finals: {winner.trial_id}, {mean}"]
    if verdict.lead is not None:
        lines.append(_describe_lead(verdict, verdict.finalists[1]))
    lines.append(
        f"best/ holds {best_run.trial_id}, the best of the winner's seeds on validation "
        f"({name} {best_run.value(verdict.metric):.2f}, seed {best_run.seed})"
    )
    return [*lines, *(f"note: {note}" for note in verdict.notes)]


def make_table(verdict: Verdict) -> list[dict[str, str]]:
    """A row a finalist, best first."""
    return [
        {
            "finalist": finalist.trial_id,
            "seeds": str(len(finalist.completed)),
            f"mean {verdict.metric.name}": _format(finalist.mean),
            "+-": _format(finalist.deviation),
            "P(best)": _format(finalist.probability_best),
            "lora_rank": str(finalist.params.lora_rank),
            "lora_alpha": f"{finalist.params.lora_alpha:g}",
            "lora_dropout": f"{finalist.params.lora_dropout:g}",
            "learning_rate": f"{finalist.params.learning_rate:.2e}",
        }
        for finalist in verdict.finalists
    ]


def _describe_lead(verdict: Verdict, second: Finalist) -> str:
    line = f"it leads {second.trial_id} by {verdict.lead:.2f}"
    if verdict.interval is None:
        return line
    low, high = verdict.interval
    line += (
        f" (95% interval {low:.2f} to {high:.2f}; {verdict.num_rows} validation rows in pairs, and "
        "seeds, resampled)"
    )
    if verdict.finalists[0].probability_best is not None:
        line += f" and is the best with probability {verdict.finalists[0].probability_best:.2f}"
    return line if low > 0 else f"{line}: the lead may be chance"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
