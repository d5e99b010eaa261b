"""A winner stands beside what needs no training, and is doubted where it is no better."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from sweeps.finals import predictions
from sweeps.finals.baselines import add_baselines, make_baseline, score_baseline
from sweeps.finals.outcome import Outcome, Winner
from sweeps.finals.verdict import Verdict, write
from sweeps.publish.model_card import render
from sweeps.publish.summary import describe, make_summary_fields
from sweeps.publish.tables import list_scores
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from tests.sweeps.example_facts import facts
from tests.sweeps.invented_sweep import PARAMS, make_config, make_report
from trainables.checkpoint import get_checkpoint_folder
from trainables.config import Metric
from trainables.data.rows import MetricCode, Row, Scoring, Splits, select_fixed_slice
from trainables.metrics.classification import classification_scores
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows
from trainables.metrics.score_texts import add_custom_scores

LABELS = ("good", "bad", "odd")
ACCURACY, ROUGE = Metric(name="accuracy"), Metric(name="rougeLsum")
Answer = Callable[[Row], str]


def label_rows(split: str, num: int = 120) -> tuple[Row, ...]:
    """Of ten rows six are bad, three good and one is odd."""
    return tuple(
        Row(
            id=f"{split}{n}",
            prompt=f"{split} text {n}",
            target=(["bad"] * 6 + ["good"] * 3 + ["odd"])[n % 10],
        )
        for n in range(num)
    )


def text_rows(split: str, num: int = 120) -> tuple[Row, ...]:
    """The input has four sentences, and the target tells the first two again."""
    rows = []
    for n in range(num):
        text = f"Word{n} began it all. Then Mr. Big{n} came home\nShe{n} left. He{n} wept."
        prompt = f"Tell. It. Short: {text} Now."
        rows.append(
            Row(
                id=f"{split}{n}",
                prompt=prompt,
                target=f"Big{n} came home. It began.",
                cut_from=len("Tell. It. Short: "),
                cut_to=len(prompt) - len(" Now."),
            )
        )
    return tuple(rows)


def splits_of(make_rows: Callable[[str], tuple[Row, ...]], scoring: Scoring) -> Splits:
    train, validation, test = map(make_rows, ("train", "validation", "test"))
    return Splits(
        train=train,
        validation=validation,
        test=test,
        counts={},
        scoring=scoring,
        prompt_template="",
    )


CLASSES = splits_of(label_rows, Scoring(kind="classify", labels=LABELS))
TEXTS = splits_of(text_rows, Scoring())


def scored(rows: Sequence[Row], splits: Splits, answer: Answer) -> EvalResult:
    said, targets = [answer(row) for row in rows], [row.target for row in rows]
    if splits.scoring.kind == "classify":
        own = {"accuracy": tuple(100.0 * (a == b) for a, b in zip(said, targets, strict=True))}
        metrics = classification_scores(said, targets, LABELS)
    else:
        rouge = rouge_rows(said, targets, "english")
        own = {name: tuple(row[name] for row in rouge) for name in ROUGE_TYPES}
        metrics = {name: sum(values) / len(values) for name, values in own.items()}
    return add_custom_scores(
        EvalResult(metrics=metrics, answers=tuple(said), row_scores=own), rows, splits.scoring
    )


def judge(folder: Path, splits: Splits, metric: Metric, winner: Answer, base: Answer) -> Outcome:
    """What is said of a winner and a base that answer so, after a sweep of one trial."""
    config, paths = make_config(), RunPaths(folder)
    test = select_fixed_slice(splits.test, len(splits.test))
    validation = select_fixed_slice(splits.validation, config.eval_rows)
    checkpoint = get_checkpoint_folder(paths.get_trial_folder("t0000"), 9)
    checkpoint.mkdir(parents=True)
    on_validation = scored(validation, splits, winner)
    write_answers(checkpoint, validation, on_validation)
    results = {
        "validation_base": scored(validation, splits, base),
        "test_base": scored(test, splits, base),
        "t0000": scored(test, splits, winner),
    }
    predictions.save(paths, splits, config.settings, results)
    scores = {name: result.metrics for name, result in results.items()}
    scores |= {"validation": on_validation.metrics, "test": scores.pop("t0000")}
    report = replace(make_report("t0000", 9, 0.0), metrics=on_validation.metrics)
    run = TrialRecord(
        trial_id="t0000", number=0, params=PARAMS, reports=[report], status="completed"
    )
    tested = Winner(run=run, tested={"t0000": checkpoint})
    outcome = Outcome(winner=tested, scores=scores, runs={"t0000": scores["test"]})
    return add_baselines(config, splits, paths, metric, outcome)


def say_bad(row: Row) -> str:
    return "bad"


def say_nearly_right(row: Row) -> str:
    return "bad" if row.id.endswith("7") else row.target


def say_half(row: Row) -> str:
    """Right in half of the rows."""
    return row.target if int(row.id[-1]) % 2 else LABELS[(LABELS.index(row.target) + 1) % 3]


def test_majority_score_is_that_of_a_recount_of_the_training_labels(tmp_path: Path) -> None:
    odd = [replace(row, target="odd") for row in label_rows("test", 10)]
    splits = replace(CLASSES, test=(*CLASSES.test, *odd))
    found = judge(tmp_path, splits, ACCURACY, say_nearly_right, say_half)
    assert sum(row.target == "bad" for row in splits.train) == 72  # of 120, the most common
    assert found.baselines == {"majority": "always saying 'bad'"}
    hits = sum(row.target == "bad" for row in splits.test)
    assert found.scores["test_majority"]["accuracy"] == pytest.approx(100.0 * hits / 130)
    assert found.scores["validation_majority"]["accuracy"] == pytest.approx(60.0)


def test_repeated_rows_of_rare_labels_do_not_hide_the_majority() -> None:
    rare = [row for row in CLASSES.train if row.target == "odd"]
    repeated = [
        replace(row, id=f"{row.id}#{n}", added="repeated") for row in rare for n in range(9)
    ]
    assert make_baseline(replace(CLASSES, train=(*CLASSES.train, *repeated))).title.endswith(
        "'bad'"
    )


def test_lead_score_is_rouge_of_the_inputs_first_sentences(tmp_path: Path) -> None:
    found = judge(tmp_path, TEXTS, ROUGE, lambda row: row.target, lambda row: "none")
    assert found.baselines == {"lead": "the input's first 2 sentences"}
    scorer = RougeScorer(["rouge1", "rougeLsum"], use_stemmer=True)
    for name in ("rouge1", "rougeLsum"):
        values = [
            scorer.score(
                row.target.replace(". ", ".\n"),
                f"Word{row.id[4:]} began it all.\nThen Mr. Big{row.id[4:]} came home",
            )[name].fmeasure
            for row in TEXTS.test
        ]
        mean = 100.0 * sum(values) / len(values)
        assert mean > 50.0
        assert found.scores["test_lead"][name] == pytest.approx(mean)


@pytest.mark.parametrize(("num", "expected"), [(1, 1), (2, 2), (9, 3)])
def test_lead_is_as_long_as_targets_are_but_three_sentences_at_most(
    num: int, expected: int
) -> None:
    train = tuple(replace(row, target="It rained. " * num) for row in TEXTS.train)
    baseline = make_baseline(replace(TEXTS, train=train))
    _, said = score_baseline(baseline, TEXTS.test, TEXTS.scoring)
    assert len(said.answers[0].splitlines()) == expected


def test_classifier_that_says_one_label_to_all_is_named(tmp_path: Path) -> None:
    found = judge(tmp_path, CLASSES, ACCURACY, say_bad, say_half)
    single, no_lead = found.doubts[:2]
    assert single == "the winner says 'bad' to all 120 rows of validation"
    assert no_lead == (
        "the winner is no better than always saying 'bad': accuracy 60.00 against 60.00 on "
        "validation (95% interval of the lead 0.00 to 0.00) and 60.00 against 60.00 on test "
        "(95% interval of the lead 0.00 to 0.00)"
    )


def test_winner_that_answers_as_the_base_does_is_named(tmp_path: Path) -> None:
    found = judge(tmp_path, CLASSES, ACCURACY, say_nearly_right, say_nearly_right)
    (doubt,) = found.doubts
    assert doubt.startswith("the winner is no better than the untuned base: accuracy")


def test_winner_that_is_worse_than_the_base_is_named(tmp_path: Path) -> None:
    found = judge(tmp_path, CLASSES, ACCURACY, say_half, say_nearly_right)
    doubt = next(doubt for doubt in found.doubts if "untuned base" in doubt)
    assert doubt.startswith("the winner is no better than the untuned base: accuracy 50.00 against")
    low, high = map(float, re.findall(r"lead (\S+) to (-?[\d.]+)", doubt)[0])
    assert low < -40.0 < high < 0.0


def test_lead_that_may_be_chance_is_named_as_such(tmp_path: Path) -> None:
    def say_little_better(row: Row) -> str:
        return row.target if row.id[-2:] == "10" else say_half(row)

    found = judge(tmp_path, CLASSES, ACCURACY, say_little_better, say_half)
    doubt = next(doubt for doubt in found.doubts if "untuned base" in doubt)
    assert doubt.startswith("the winner may be no better than the untuned base: accuracy")
    low, high = map(float, re.findall(r"lead (\S+) to ([\d.]+)", doubt)[0])
    assert low <= 0.0 < high


def test_good_winner_is_not_doubted(tmp_path: Path) -> None:
    assert judge(tmp_path / "labels", CLASSES, ACCURACY, say_nearly_right, say_half).doubts == ()
    texts = judge(tmp_path / "texts", TEXTS, ROUGE, lambda row: row.target, lambda row: "none")
    assert texts.doubts == ()


@pytest.mark.parametrize(("num_other", "is_named"), [(11, True), (12, False)])
def test_same_text_to_more_than_nine_of_ten_rows_is_named(
    tmp_path: Path, num_other: int, is_named: bool
) -> None:
    def answer(row: Row) -> str:
        return row.target if int(re.sub(r"\D", "", row.id)) < num_other else "secret words"

    found = judge(tmp_path, TEXTS, ROUGE, answer, lambda row: "none")
    told = [doubt for doubt in found.doubts if "same answer" in doubt]
    rows = "the winner gives the same answer to 109 of 120 rows of validation"
    assert told == ([rows] if is_named else [])
    assert "secret" not in str(found.doubts)


def test_metric_that_cannot_be_resampled_is_compared_by_its_scores(tmp_path: Path) -> None:
    source = "def flat(rows):\n    return 0.0\n"
    code = MetricCode(name="flat", files={"flat.py": source}, function="flat")
    splits = replace(CLASSES, scoring=replace(CLASSES.scoring, custom=(code,)))
    found = judge(tmp_path, splits, Metric(name="flat"), say_bad, say_bad)
    assert found.doubts[1:] == tuple(
        f"the winner is no better than {what}: flat 0.0000 against 0.0000 on validation "
        "and 0.0000 against 0.0000 on test"
        for what in ("always saying 'bad'", "the untuned base")
    )


def test_terminal_files_card_and_tracker_show_baseline_and_doubt(tmp_path: Path) -> None:
    found = judge(tmp_path, CLASSES, ACCURACY, say_bad, say_half)
    table = list_scores(found, ACCURACY)
    assert list(table.columns) == [
        *("split", "metric", "best adapter", "the untuned base", "always saying 'bad'")
    ]
    row = next(row for row in table.rows if list(row[:2]) == ["test", "accuracy"])
    assert list(row[2:]) == ["60.00", "50.00", "60.00"]
    paths = RunPaths(tmp_path)
    text = describe(make_config(), paths, [found.winner.run], ACCURACY, found)
    card = render(facts(outcome=found, metric=ACCURACY, trials=[found.winner.run]))
    values = make_summary_fields(found, None, None)["values"]
    assert isinstance(values, dict)
    for doubt in found.doubts:
        assert f"warning: {doubt}\n" in text and f"**Warning:** {doubt}." in card
        assert doubt in values["doubts"]
    assert values["test_majority/accuracy"] == 60.0
    assert "| test | accuracy | 60.00 | 50.00 | 60.00 |" in card
    index = card.split("---")[1]
    assert "validation" in index and "majority" not in index and "_base" not in index
    write(Verdict(metric=ACCURACY, finalists=()), paths, found.baseline_facts)
    content = json.loads(paths.finals_json.read_text())
    assert content["baselines"]["always saying 'bad'"]["test"]["accuracy"] == 60.0
    assert content["baselines"]["the untuned base"]["test"]["accuracy"] == 50.0
    assert content["doubts"] == list(found.doubts)
    assert content["lead_intervals"]["always saying 'bad'"]["test"] == [0.0, 0.0]
    low, high = content["lead_intervals"]["the untuned base"]["test"]
    assert f"| test | the untuned base | 10.00 | {low:.2f} to {high:.2f} |" in card


def test_run_without_answers_is_compared_by_its_scores(tmp_path: Path) -> None:
    made = judge(tmp_path, CLASSES, ACCURACY, say_bad, say_bad)
    for path in tmp_path.rglob("answers.jsonl"):
        path.unlink()
    bare = replace(made, doubts=(), baselines={})
    again = add_baselines(make_config(), CLASSES, RunPaths(tmp_path), ACCURACY, bare)
    assert len(again.doubts) == 2 and "interval" not in str(again.doubts)
