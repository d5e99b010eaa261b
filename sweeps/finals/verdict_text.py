"""What the finals came to, in words: for the summary and for the model card."""

from sweeps.finals.verdict import Finalist, Verdict


def sentences(verdict: Verdict) -> list[str]:
    """The winner, its lead and how sure that is, which adapter is kept, and what went amiss."""
    winner, best_run = verdict.winner, verdict.best_run
    if winner is None or best_run is None:
        return ["no run of the finals reached the end: the best trial of the search stands",
                *verdict.notes]  # fmt: skip
    name, num = verdict.metric.name, len(winner.completed)
    seeds = f"{num} fresh seeds" if num > 1 else "one fresh seed"
    told = [f"winner of the finals: {winner.trial_id}, {name} {_spread(winner)} over {seeds}"]
    if verdict.lead is not None:
        told.append(_lead(verdict, verdict.finalists[1]))
    told.append(
        f"best/ holds {best_run.trial_id}, the best of the winner's seeds on validation "
        f"({name} {best_run.value(verdict.metric):.2f}, seed {best_run.seed})"
    )
    return [*told, *(f"note: {note}" for note in verdict.notes)]


def table(verdict: Verdict) -> list[dict[str, str]]:
    """A row a finalist, best first."""
    return [
        {
            "finalist": one.trial_id,
            "seeds": str(len(one.completed)),
            f"mean {verdict.metric.name}": _number(one.mean),
            "+-": _number(one.deviation),
            "P(best)": "" if one.probability_best is None else f"{one.probability_best:.2f}",
            "lora_rank": str(one.params.lora_rank),
            "lora_alpha": f"{one.params.lora_alpha:g}",
            "lora_dropout": f"{one.params.lora_dropout:g}",
            "learning_rate": f"{one.params.learning_rate:.2e}",
        }
        for one in verdict.finalists
    ]


def _lead(verdict: Verdict, second: Finalist) -> str:
    line = f"it leads {second.trial_id} by {verdict.lead:.2f}"
    if verdict.interval is None:
        return line
    low, high = verdict.interval
    line += (
        f" (95% interval {low:.2f} to {high:.2f}; {verdict.num_rows} validation rows in pairs, and "
        "seeds, resampled)"
    )
    chance = verdict.finalists[0].probability_best
    if chance is not None:
        line += f" and is the best with probability {chance:.2f}"
    return line if low > 0 else f"{line}: the lead may be chance"


def _spread(one: Finalist) -> str:
    return _number(one.mean) + (f" +- {one.deviation:.2f}" if one.deviation is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
