"""What every trainer promises: reports, resuming, stopping, failing, and the same numbers."""

import dataclasses
import gc
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from trainables.checkpoint import (
    ADAPTER_NAMES,
    PACK_STATE_NAMES,
    SOLO_STATE_NAMES,
    Progress,
    list_complete_checkpoints,
    prune_to_adapter,
    read_last_report,
    read_progress,
    write_progress,
)
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.data.prepared_rows import read_rows, write_rows
from trainables.data.rows import SPLITS, Message, MetricCode, Row, select_fixed_slice
from trainables.errors import SweepAborted, TrialFailed
from trainables.metrics.eval_result import read_answers
from trainables.models.base_model import load_base
from trainables.packing.service import in_process
from trainables.packing.service.events import Finished, Reported
from trainables.packing.service.host import PackHost
from trainables.packing.sizing.capacity import Capacity
from trainables.solo import rung_callback, trainer
from trainables.solo.evaluate import evaluate

Train = Callable[[TrialConfig, Callable[[TrialReport], None]], None]
Numbers = list[tuple[int, float, dict[str, float]]]

TRAINERS: dict[str, Train] = {"solo": trainer.train, "packed": in_process.train}
STATE_NAMES = {"solo": SOLO_STATE_NAMES, "packed": PACK_STATE_NAMES}


@pytest.fixture(params=TRAINERS)
def engine(request: pytest.FixtureRequest) -> str:
    """The trainer's name."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, list[TrialReport]]:
    return {}


@pytest.fixture
def whole(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    whole_runs: dict[str, list[TrialReport]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[TrialReport]:
    """The reports of an undisturbed trial; its folder is read only."""
    if engine not in whole_runs:
        whole_runs[engine] = run(engine, settings, params, tmp_path_factory.mktemp(engine))
    return whole_runs[engine]


def run(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    folder: Path,
    on_report: Callable[[TrialReport], None] | None = None,
) -> list[TrialReport]:
    """Train and collect the reports."""
    reports: list[TrialReport] = []

    def report(made: TrialReport) -> None:
        reports.append(made)
        if on_report is not None:
            on_report(made)

    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=folder)
    TRAINERS[engine](config, report)
    return reports


def numbers(reports: Sequence[TrialReport]) -> Numbers:
    """What must not depend on the process, the attempt or the clock."""
    return [(report.step, report.train_loss, report.metrics) for report in reports]


def stop_at(step: int) -> Callable[[TrialReport], None]:
    """A report function that stops the trial at a step."""

    def stop(report: TrialReport) -> None:
        if report.step == step:
            raise SystemExit(0)

    return stop


def test_trial_reports_at_its_rungs_and_leaves_its_adapter(whole: list[TrialReport]) -> None:
    reports, folder = whole, whole[-1].checkpoint.parent
    assert [report.step for report in reports] == [2, 4]
    assert [report.trial_id for report in reports] == ["t0001", "t0001"]
    assert reports[1].checkpoint.name == "checkpoint-4"
    assert reports[1].train_loss < reports[0].train_loss
    assert reports[0].learning_rate == pytest.approx(5e-3)
    assert reports[1].learning_rate == pytest.approx(5e-3 / 3)
    assert reports[1].epoch == pytest.approx(16 / 40)
    assert reports[1].tokens > reports[0].tokens > 0
    assert reports[1].seconds > reports[0].seconds > 0
    trained = [reports[0].tokens, reports[1].tokens - reports[0].tokens]
    training_s = [n / made.tokens_per_s for n, made in zip(trained, reports, strict=True)]
    assert 0 < sum(training_s) < reports[1].seconds
    assert reports[1].peak_gib > 0
    assert [path.name for path in list_complete_checkpoints(folder)] == ["checkpoint-4"]
    assert sorted(path.name for path in reports[1].checkpoint.iterdir()) == sorted(ADAPTER_NAMES)
    assert len({path.stat().st_mode for path in reports[1].checkpoint.iterdir()}) == 1


def test_peft_loads_the_adapter_and_gives_the_reported_scores(
    whole: list[TrialReport], settings: TrainingSettings, tokenizer: PreTrainedTokenizerBase
) -> None:
    last = whole[-1]
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(last.checkpoint))
    splits = read_rows(settings.rows_dir)
    rows = select_fixed_slice(splits.validation, settings.eval_rows)
    scores = evaluate(model, tokenizer, rows, splits.scoring, settings)
    assert last.metrics == pytest.approx(scores.metrics, rel=1e-5)
    kept = read_answers(last.checkpoint)
    assert kept.ids == tuple(row.id for row in rows)
    assert kept.targets == tuple(row.target for row in rows)
    assert kept.answers == scores.answers
    values = kept.row_scores["rougeLsum"]
    assert sum(values) / len(values) == pytest.approx(last.metrics["rougeLsum"], rel=1e-12)
    names = {"rouge1", "rouge2", "rougeL", "rougeLsum", "eval_loss", "gen_len_tokens"}
    assert set(last.metrics) == names | {"exact_match", "token_f1"}
    assert all(math.isfinite(value) for value in last.metrics.values())


def test_resumed_trial_sends_its_last_report_again_and_equals_an_undisturbed_one(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    whole: list[TrialReport],
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path / "cut", stop_at(2))
    sent = read_last_report(tmp_path / "cut")
    (tmp_path / "cut" / "checkpoint-3").mkdir()
    resumed = run(engine, settings, params, tmp_path / "cut")
    assert numbers(resumed) == numbers(whole)
    assert resumed[0] == sent
    assert resumed[1].seconds > resumed[0].seconds
    assert resumed[1].tokens == whole[1].tokens


def die_after_third_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a solo trial saved at each step, and its process end once step 3 is."""

    def save_and_die(progress: Progress) -> None:
        write_progress(progress)
        if progress.step == 3:
            raise SystemExit(0)

    monkeypatch.setattr(rung_callback, "SAVE_INTERVAL_S", 0.0)
    monkeypatch.setattr(rung_callback, "write_progress", save_and_die)


@pytest.mark.parametrize("engine", ["solo"], indirect=True)  # a pack is told when to save
def test_trial_that_is_killed_between_two_rungs_goes_on_from_its_last_save(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    whole: list[TrialReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    die_after_third_save(monkeypatch)
    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path)
    progress = read_progress(tmp_path)
    assert progress is not None and progress.step == 3
    resumed = run(engine, settings, params, tmp_path)
    assert numbers(resumed) == numbers(whole)
    assert resumed[1].learning_rate == whole[1].learning_rate


@pytest.mark.parametrize("engine", ["solo"], indirect=True)
def test_saves_between_two_rungs_replace_each_other(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    die_after_third_save(monkeypatch)
    with pytest.raises(SystemExit):
        run(engine, dataclasses.replace(settings, rungs=(4,)), params, tmp_path)
    saved = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert saved == {"checkpoint-2", "checkpoint-3"}  # the one before stays until this one is whole


@pytest.mark.slow
def test_trial_over_an_unquantised_base_resumes_and_its_adapter_scores_as_reported(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    whole: list[TrialReport],
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(settings, base="bf16")
    plain = run(engine, settings, params, tmp_path / "whole")
    assert plain[-1].metrics["eval_loss"] != pytest.approx(whole[-1].metrics["eval_loss"], rel=1e-5)
    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path / "cut", stop_at(2))
    assert numbers(run(engine, settings, params, tmp_path / "cut")) == numbers(plain)
    base = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    base.generation_config = GenerationConfig()
    model = PeftModel.from_pretrained(base, str(plain[-1].checkpoint))
    splits = read_rows(settings.rows_dir)
    rows = select_fixed_slice(splits.validation, settings.eval_rows)
    scores = evaluate(model, tokenizer, rows, splits.scoring, settings)
    assert plain[-1].metrics == pytest.approx(scores.metrics, rel=1e-5)
    assert read_answers(plain[-1].checkpoint).answers == scores.answers


def test_finished_trial_sends_its_report_again_and_trains_no_more(
    engine: str, settings: TrainingSettings, params: Hyperparameters, whole: list[TrialReport]
) -> None:
    folder = whole[-1].checkpoint.parent
    assert run(engine, settings, params, folder) == whole[-1:]


def test_stopped_trial_keeps_the_state_to_go_on_from(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, rungs=(1, 2, 3, 4))
    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path, stop_at(3))
    kept = list_complete_checkpoints(tmp_path)
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-3"]
    assert all((path / name).is_file() for path in kept for name in STATE_NAMES[engine])


def test_pruned_trial_starts_anew(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path, stop_at(2))
    prune_to_adapter(tmp_path)
    assert [report.step for report in run(engine, settings, params, tmp_path)] == [2, 4]


def test_trial_of_the_other_engine_starts_anew(
    engine: str,
    settings: TrainingSettings,
    params: Hyperparameters,
    whole: list[TrialReport],
    tmp_path: Path,
) -> None:
    (other,) = TRAINERS.keys() - {engine}
    with pytest.raises(SystemExit):
        run(other, settings, params, tmp_path, stop_at(2))
    assert numbers(run(engine, settings, params, tmp_path)) == numbers(whole)


def test_stopped_trial_leaves_no_model_in_memory(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    before = num_weights()
    alive: list[int] = []

    def stop(report: TrialReport) -> None:
        alive.append(num_weights())
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run(engine, settings, params, tmp_path, stop)
    assert alive[0] > before
    assert num_weights() == before


def num_weights() -> int:
    """Quantised weights that are alive in this process."""
    gc.collect()
    return sum(
        isinstance(found, Linear4bit)
        or (type(found) is torch.Tensor and found.dtype == torch.uint8)
        for found in gc.get_objects()
    )


@pytest.mark.slow
def test_trial_does_not_depend_on_what_its_process_did_before(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    first = numbers(run(engine, settings, params, tmp_path / "first"))
    other = dataclasses.replace(params, lora_rank=2, learning_rate=1e-4)
    bf16 = dataclasses.replace(settings, compute_dtype="bfloat16", seed=9)
    assert numbers(run(engine, bf16, other, tmp_path / "between")) != first
    assert numbers(run(engine, settings, params, tmp_path / "second")) == first
    assert numbers_of_a_fresh_process(engine, settings, params, tmp_path / "fresh") == first


def numbers_of_a_fresh_process(
    engine: str, settings: TrainingSettings, params: Hyperparameters, folder: Path
) -> Numbers:
    """The same trial, trained by a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return numbers(pool.submit(run, engine, settings, params, folder).result())


def test_exploding_trial_fails_with_its_step(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    params = dataclasses.replace(params, learning_rate=1e30)
    with pytest.raises(TrialFailed, match=r"non-finite (loss|gradient) at step [23]"):
        run(engine, settings, params, tmp_path)


def test_trial_of_one_step_reports_once(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, max_steps=1, rungs=(1,), schedule="cosine")
    (report,) = run(engine, settings, params, tmp_path)
    assert report.step == 1 and math.isfinite(report.train_loss)


def test_missing_rows_abort_the_sweep(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, rows_dir=tmp_path / "nowhere")
    with pytest.raises(SweepAborted, match="nowhere"):
        run(engine, settings, params, tmp_path)


def test_engines_agree_on_conversations_of_several_turns(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    splits = read_rows(settings.rows_dir)
    chats = {split: _as_conversations(getattr(splits, split)) for split in SPLITS}
    write_rows(tmp_path / "rows", dataclasses.replace(splits, **chats))
    params = dataclasses.replace(params, lora_dropout=0.0)
    settings = dataclasses.replace(settings, rows_dir=tmp_path / "rows", max_length_tokens=400)
    solo, packed = (run(name, settings, params, tmp_path / name) for name in ("solo", "packed"))
    assert [report.step for report in packed] == [report.step for report in solo] == [2, 4]
    for one, other in zip(solo, packed, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)
    said = [read_answers(reports[-1].checkpoint).answers for reports in (solo, packed)]
    assert said[0] == said[1]
    last_answer_alone = {
        split: tuple(
            dataclasses.replace(
                row,
                history=tuple(dataclasses.replace(m, is_trained=False) for m in row.history),
            )
            for row in rows
        )
        for split, rows in chats.items()
    }
    write_rows(tmp_path / "last" / "rows", dataclasses.replace(splits, **last_answer_alone))
    settings = dataclasses.replace(settings, rows_dir=tmp_path / "last" / "rows")
    (*_, other) = run("packed", settings, params, tmp_path / "last" / "t")
    assert abs(other.train_loss - packed[-1].train_loss) > 1e-2  # earlier answers do count


def test_engines_report_the_same_of_every_metric_and_reference(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    splits = read_rows(settings.rows_dir)
    source = "def half(rows):\n    return [len(r['answer'] + r['prompt']) / 2 for r in rows]\n"
    scoring = dataclasses.replace(
        splits.scoring,
        metrics=("bleu", "chrf"),
        custom=(MetricCode(name="half", files={"half.py": source}, function="half"),),
    )
    validation = tuple(
        dataclasses.replace(row, references=("Bob brings it", row.prompt[-20:])[: index % 3])
        for index, row in enumerate(splits.validation)
    )
    write_rows(
        tmp_path / "rows", dataclasses.replace(splits, scoring=scoring, validation=validation)
    )
    params = dataclasses.replace(params, lora_dropout=0.0)
    settings = dataclasses.replace(settings, rows_dir=tmp_path / "rows")
    solo, packed = (run(name, settings, params, tmp_path / name) for name in ("solo", "packed"))
    assert {"exact_match", "token_f1", "bleu", "chrf", "half"} <= packed[-1].metrics.keys()
    for one, other in zip(solo, packed, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)
    kept = [read_answers(reports[-1].checkpoint) for reports in (solo, packed)]
    losses = [[loss for loss, _ in one.row_losses] for one in kept]
    assert losses[0] and losses[0] == pytest.approx(losses[1], rel=1e-5)
    one, other = (dataclasses.replace(answers, row_losses=()) for answers in kept)
    assert one == other and any(one.references)
    assert packed[-1].metrics["half"] > 10


def test_metric_that_crashes_fails_its_trial_with_the_reason(
    engine: str, settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    splits = read_rows(settings.rows_dir)
    code = MetricCode(name="f", files={"f.py": "def f(rows):\n    return 1 / 0\n"}, function="f")
    scoring = dataclasses.replace(splits.scoring, custom=(code,))
    write_rows(tmp_path / "rows", dataclasses.replace(splits, scoring=scoring))
    settings = dataclasses.replace(settings, rows_dir=tmp_path / "rows")
    with pytest.raises(TrialFailed, match=r"the metric f failed: ZeroDivisionError.*line 2"):
        run(engine, settings, params, tmp_path / "t")


def _as_conversations(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with one to three of their neighbours as earlier turns of theirs."""
    chats = []
    for index, row in enumerate(rows):
        earlier = [rows[index - back] for back in range(1, 1 + index % 3)]
        history = [Message(role="system", content="Be brief.")] * (index % 2)
        for other in earlier:
            history.append(Message(role="user", content=other.prompt))
            history.append(Message(role="assistant", content=other.target, is_trained=True))
        chats.append(dataclasses.replace(row, history=tuple(history)))
    return tuple(chats)


def test_engines_agree_without_dropout(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    params = dataclasses.replace(params, lora_dropout=0.0)
    settings = dataclasses.replace(settings, max_steps=12, rungs=tuple(range(1, 13)))
    curves = [run(name, settings, params, tmp_path / name) for name in TRAINERS]
    assert len(curves[0]) == 12
    for one, other in zip(*curves, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-4)
        assert other.learning_rate == pytest.approx(one.learning_rate, rel=1e-6)
        assert (other.step, other.tokens, other.epoch) == (one.step, one.tokens, one.epoch)


def test_trials_of_one_pack_with_seeds_of_their_own_give_what_each_gives_alone(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    plain = dataclasses.replace(params, lora_dropout=0.0)
    seeds = [dataclasses.replace(settings, seed=seed) for seed in (settings.seed, 11)]
    together = run_together(seeds, plain, tmp_path / "pack")
    for own, reports in zip(seeds, together, strict=True):
        for name in TRAINERS:
            expected = run(name, own, plain, tmp_path / f"{name}-{own.seed}")
            assert [report.step for report in reports] == [report.step for report in expected]
            for one, other in zip(reports, expected, strict=True):
                assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
                loss = other.metrics["eval_loss"]
                assert one.metrics["eval_loss"] == pytest.approx(loss, rel=1e-4)
    assert len({round(reports[-1].train_loss, 4) for reports in together}) == 2
    assert len({reports[-1].tokens for reports in together}) == 2  # other rows


def run_together(
    settings: Sequence[TrainingSettings], params: Hyperparameters, folder: Path
) -> list[list[TrialReport]]:
    """The reports of trials that share a pack of the first one's settings."""
    capacity = Capacity(
        num_slots=len(settings),
        max_rank=params.lora_rank,
        max_tokens=4096,
        eval_tokens=8192,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    host = PackHost(settings[0], capacity, math.inf, admit_wait_s=60.0)
    leases = [
        host.join(
            TrialConfig(trial_id=f"s{n}", params=params, settings=own, folder=folder / str(n))
        )
        for n, own in enumerate(settings)
    ]
    with host.run_in_thread(), ThreadPoolExecutor(len(leases)) as trials:
        return list(trials.map(lambda lease: reports_of(host, lease), leases))


def reports_of(host: PackHost, lease: int) -> list[TrialReport]:
    """All that a trial reports until it has finished."""
    reports = []
    while not isinstance(event := host.take_event(lease, 60.0), Finished):
        assert isinstance(event, Reported), event
        reports.append(event.report)
    return reports
