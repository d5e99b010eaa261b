"""What a winner must beat to mean something: what can be said without training.

That is the most common training label to every row or, of texts, the first sentences of the input;
and there is the untuned base. No model runs here: the rows are the run's, and the answers are those
that it keeps.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from sweeps.config import SweepConfig
from sweeps.finals.outcome import Outcome
from sweeps.finals.predictions import TEST_BASE, VALIDATION_BASE
from sweeps.finals.verdict import resample_lead
from sweeps.finals.verdict_text import describe_no_lead, describe_single_answer
from sweeps.records.paths import RunPaths
from trainables.config import Metric
from trainables.data.rows import Row, Scoring, Splits, select_fixed_slice, select_rung_rows
from trainables.metrics.eval_result import SavedAnswers, read_answers
from trainables.metrics.score_texts import score_given_answers
from trainables.metrics.sentences import sentences_of

MAX_LEAD_SENTENCES = 3


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What needs no training."""

    key: str
    """Ends the names of its scores: test_majority, test_lead."""
    title: str
    answer: Callable[[Row], str]


def add_baselines(
    config: SweepConfig, splits: Splits, paths: RunPaths, metric: Metric, outcome: Outcome
) -> Outcome:
    """The outcome with a baseline's scores, and a sentence for each reason to doubt the winner.

    The winner is here the one adapter that is kept, so rows are resampled and seeds are not.
    """
    run = outcome.winner.run
    rows = {
        "validation": select_rung_rows(splits.validation, config.settings, run.num_steps),
        "test": select_fixed_slice(splits.test, len(splits.test)),
    }
    baseline, scores, baseline_answers = make_baseline(splits), dict(outcome.scores), {}
    for split, split_rows in rows.items():
        scored = score_baseline(baseline, split_rows, splits.scoring)
        scores[f"{split}_{baseline.key}"], baseline_answers[split] = scored
    winner = _read_answers(outcome.winner.tested[run.trial_id], paths.answers / run.trial_id)
    base = _read_answers(paths.answers / VALIDATION_BASE, paths.answers / TEST_BASE)
    doubts = [describe_single_answer(winner, is_label=splits.scoring.kind == "classify")]
    intervals = {}
    others = (
        (baseline.key, baseline.title, baseline_answers),
        ("base", "the untuned base", base),
    )
    for key, title, answers in others:
        intervals[key] = {
            split: resample_lead(winner[split], answers[split], metric, splits.scoring, config.seed)
            for split in winner
            if split in answers
        }
        doubts.append(describe_no_lead(key, title, scores, metric, intervals[key]))
    return replace(
        outcome,
        scores=scores,
        baselines={baseline.key: baseline.title},
        intervals=intervals,
        doubts=tuple(doubt for doubt in doubts if doubt is not None),
    )


def make_baseline(splits: Splits) -> Baseline:
    """The most common training label, or as many sentences as training targets have on average.

    Of labels that are equally common it is the first; rows that augmentation added do not count.
    """
    language = splits.scoring.language
    train = [row for row in splits.train if not row.added]
    if splits.scoring.kind == "classify":
        counts = Counter(row.target for row in train)
        label = max(splits.scoring.labels, key=lambda label: counts[label])
        return Baseline(key="majority", title=f"always saying {label!r}", answer=lambda _: label)
    mean = fmean(len(sentences_of(row.target, language)) for row in train)
    num = min(max(round(mean), 1), MAX_LEAD_SENTENCES)

    def take_first(row: Row) -> str:
        text = row.prompt[row.cut_from : row.cut_to]
        return "\n".join(sentences_of(text, language)[:num])

    words = f"the input's first {f'{num} sentences' if num > 1 else 'sentence'}"
    return Baseline(key="lead", title=words, answer=take_first)


def score_baseline(
    baseline: Baseline, rows: Sequence[Row], scoring: Scoring
) -> tuple[dict[str, float], SavedAnswers]:
    """The baseline's metrics on some rows, and what it says to each."""
    scored = score_given_answers([baseline.answer(row) for row in rows], rows, scoring)
    saved = SavedAnswers(
        ids=tuple(row.id for row in rows),
        targets=tuple(row.target for row in rows),
        answers=scored.answers,
        row_scores=scored.row_scores,
        references=tuple(row.references for row in rows),
    )
    return scored.metrics, saved


def _read_answers(validation: Path, test: Path) -> dict[str, SavedAnswers]:
    """Answers by split, as far as they are there."""
    answers = {}
    for split, folder in (("validation", validation), ("test", test)):
        try:
            answers[split] = read_answers(folder)
        except (OSError, ValueError):
            continue
    return answers
