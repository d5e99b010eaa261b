"""python -m sweeps.judge RUN --endpoint URL --model M: a language model compares winner and base.

It reads what the winner and the untuned base said to each test row (best/test_predictions.jsonl)
and asks twice a row, with the answers in either order. Replies are kept in the run: a repeated or
interrupted command pays only for what is new.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from sweeps.cli import parse, run_command
from sweeps.export import find_best
from sweeps.finals import predictions
from sweeps.finals.bootstrap import mean_of_rows
from sweeps.finals.predictions import Prediction
from trainables.errors import SweepAborted
from trainables.metrics.judge import JudgeOptions, Usage, judge, write_verdicts
from trainables.metrics.judge_rows import JudgedRow
from trainables.metrics.judge_verdicts import Verdict, scores_of

PROG = "python -m sweeps.judge"
NUM_RESAMPLES = 2_000
TITLES = {
    "wins_a": "winner is better",
    "wins_b": "untuned base is better",
    "ties": "equally good",
    "ties_by_disagreement": "  of these, the two orders disagreed",
    "win_rate_a": "win rate of the winner, % (ties are half)",
    "win_rate_a_low": "  its 95% interval over rows, from",
    "win_rate_a_high": "  to",
    "grade_a": "mean grade of the winner (1 to 5)",
    "grade_b": "mean grade of the untuned base",
    "graded_a": "grades of the winner that were read",
    "graded_b": "grades of the untuned base that were read",
    "unreadable": "replies without a verdict",
    "rows": "test rows",
}


@dataclass(frozen=True, kw_only=True)
class RunJudgeArgs(JudgeOptions):
    """Has a language model judge the winner's test answers beside the untuned base's."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished sweep, e.g. runs/samsum."""
    task: str = "Do what the source asks for."
    """What the answers were asked to do; the source is the row's whole prompt."""
    num_rows: int | None = None
    """Test rows that are judged, the first of their fixed order; None is all of them."""
    with_reference: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the judge the row's target too, as a good answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_rows is not None and self.num_rows < 1:
            raise SweepAborted(f"--num-rows is {self.num_rows}", "give a --num-rows above 0")


def main(argv: Sequence[str] | None = None) -> None:
    """Judges, prints the scores and the cost, and keeps both in RUN/judge."""
    args = parse(RunJudgeArgs, sys.argv[1:] if argv is None else argv, PROG)
    found = predictions.read(find_best(args.run))
    _refuse_labels(args.run)
    rows = [_row(one, args.with_reference) for one in found[: args.num_rows]]
    folder = args.run / "judge"
    verdicts, usage = judge(rows, args, folder / "replies.sqlite")
    path = _write(folder, args, verdicts, usage)
    for name, value in _scores(verdicts, args).items():
        print(f"{TITLES.get(name, name):44} {value:.4g}")
    print(usage.shown(args.price_prompt, args.price_completion))
    print(f"scores: {path}")


def _row(found: Prediction, with_reference: bool) -> JudgedRow:
    return JudgedRow(
        id=found.id,
        source=_whole(found.prompt),
        answer_a=_whole(found.prediction),
        answer_b=_whole(found.base_prediction),
        reference=_whole(found.target) if with_reference else None,
    )


def _whole(text: str) -> str:
    """Without halves of characters, which JSON can escape and no request can carry."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _refuse_labels(run: Path) -> None:
    """A label is right or wrong; nobody has to be paid to say so."""
    record: Mapping[str, object] = json.loads((run / "sweep.json").read_text(encoding="utf-8"))
    if record.get("labels"):
        raise SweepAborted(
            f"the answers of {run} are labels, which are right or wrong without a judge",
            f"see their accuracy in {run / 'best' / 'README.md'}",
        )


def _scores(verdicts: Sequence[Verdict], args: RunJudgeArgs) -> dict[str, float]:
    """With a 95% bootstrap interval of the win rate over the rows that were read."""
    scores = scores_of(verdicts, args.mode)
    worth = {"a": 100.0, "tie": 50.0, "b": 0.0}
    values = [worth[verdict.winner] for verdict in verdicts if verdict.winner is not None]
    if not values:
        return scores
    drawn = np.random.default_rng(0).multinomial(
        len(values), np.full(len(values), 1 / len(values)), NUM_RESAMPLES
    )
    low, high = np.quantile(mean_of_rows(values)(drawn.astype(np.float64)), (0.025, 0.975))
    return {**scores, "win_rate_a_low": float(low), "win_rate_a_high": float(high)}


def _write(folder: Path, args: RunJudgeArgs, verdicts: Sequence[Verdict], usage: Usage) -> Path:
    """The scores with all that they depend on, and each row's verdict beside them."""
    name = f"{re.sub(r'[^A-Za-z0-9.-]+', '-', args.model).strip('-.') or 'judge'}-{args.mode}"
    write_verdicts(folder / f"{name}.jsonl", verdicts)
    asked = {k: v for k, v in asdict(args).items() if k not in ("run", "endpoint", "api_key_env")}
    told = {"scores": _scores(verdicts, args), "asked": asked, "usage": asdict(usage)}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    run_command(main)
