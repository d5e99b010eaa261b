"""The progress display, read back from what rich writes."""

import io
import os
import re
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweeps.command_line.consoles import SafeConsole
from sweeps.cost.allocation import describe_place
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.progress import MAX_ROWS, ProgressTable
from trainables.config import Hyperparameters, Metric, TrainingSettings, TrialConfig, TrialReport

METRIC = Metric(name="rougeLsum")
SETTINGS = TrainingSettings(rows_dir=Path("/rows"), model="m", max_steps=40, rungs=(10, 20, 40))


def make_config(number: int) -> TrialConfig:
    params = Hyperparameters(lora_rank=8, lora_alpha=16.0, learning_rate=2e-4)
    return TrialConfig(
        trial_id=f"t{number:04d}", params=params, settings=SETTINGS, folder=Path("/x")
    )


def make_report(number: int, step: int, score: float, seconds: float = 100.0) -> TrialReport:
    return TrialReport(
        trial_id=f"t{number:04d}",
        step=step,
        metrics={"rougeLsum": score},
        train_loss=2.0,
        learning_rate=1e-4,
        epoch=0.5,
        tokens=100,
        tokens_per_s=50.0,
        seconds=seconds,
        peak_gib=1.5,
        checkpoint=Path("/x"),
    )


def make_progress(
    is_terminal: bool = True, metric: Metric = METRIC, num_trials: int = 8, **kwargs: Any
) -> tuple[ProgressTable, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=160, height=50)
    return ProgressTable(metric, num_trials, 40, console=console, **kwargs), out


def run_trial(progress: ProgressTable, number: int, scores: dict[int, float], **end: Any) -> None:
    progress.on_trial_start(make_config(number), number)
    for step, score in scores.items():
        progress.on_report(make_config(number), make_report(number, step, score))
    if end:
        progress.on_trial_end(make_config(number), end["status"], end.get("reason", ""))


def rendered(progress: ProgressTable) -> list[str]:
    console = Console(record=True, file=io.StringIO(), width=160)
    console.print(progress.render())
    return console.export_text().splitlines()


def drawn(console: Console, progress: ProgressTable) -> list[str]:
    """The lines that a console shows of the table, as it is wide and high."""
    lines = console.render_lines(progress.render(), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def shown_ids(progress: ProgressTable) -> list[str]:
    return [line.split()[0] for line in rendered(progress) if line.startswith("t0")]


def test_table_shows_every_fact_of_a_trial_and_of_the_sweep() -> None:
    progress, _ = make_progress()
    run_trial(progress, 0, {10: 35.5, 20: 31.25})
    lines = rendered(progress)
    (row,) = [line.split() for line in lines if line.startswith("t0000")]
    assert row == ["t0000", "running", "20/40", "8", "16", "0", "2.00e-04", "31.25", "35.5"]
    assert lines[0] == "0/8 done, 1 running, 0 failed"
    assert lines[1] == "best rougeLsum 31.25 at step 20 (t0000)"
    assert lines[2].endswith("left –")  # noqa: RUF001


def test_runs_of_the_finals_are_trials_too() -> None:
    progress, out = make_progress(is_terminal=False, num_trials=1)
    run_trial(progress, 0, {40: 30.0}, status="completed")
    known = TrialRecord(trial_id="f0000s1", number=0, params=make_config(0).params)
    progress.on_finals_start([replace(known, final_of="t0000", seed=1)])
    assert "finals started: 1 runs to train | 1/2 done" in out.getvalue()
    config = replace(make_config(0), trial_id="f0000s1")
    progress.on_trial_start(config, 0)
    progress.on_report(config, replace(make_report(0, 40, 31.0), trial_id="f0000s1"))
    progress.on_trial_end(config, "completed", "")
    assert rendered(progress)[0] == "2/2 done, 0 running, 0 failed"
    assert rendered(progress)[1] == "best rougeLsum 30 at step 40 (t0000)"  # no lucky seed


def test_running_trials_come_first_then_the_best_of_those_that_went_furthest() -> None:
    progress, _ = make_progress()
    run_trial(progress, 0, {10: 90.0}, status="stopped")
    run_trial(progress, 1, {10: 1.0, 40: 30.0}, status="completed")
    run_trial(progress, 2, {10: 1.0, 40: 40.0}, status="completed")
    run_trial(progress, 3, {40: 99.0}, status="failed", reason="out of memory")
    run_trial(progress, 4, {})
    assert shown_ids(progress) == ["t0004", "t0002", "t0001", "t0000", "t0003"]


def test_scores_of_different_steps_do_not_compete_for_best() -> None:
    progress, _ = make_progress()
    run_trial(progress, 0, {10: 90.0}, status="stopped")
    run_trial(progress, 1, {10: 1.0, 20: 30.0})
    assert "best rougeLsum 30 at step 20 (t0001)" in rendered(progress)


def test_less_is_better_for_a_metric_that_should_fall() -> None:
    progress, _ = make_progress(metric=Metric(name="rougeLsum", mode="min"))
    run_trial(progress, 0, {10: 3.0, 20: 4.0}, status="completed")
    run_trial(progress, 1, {10: 9.0, 20: 2.0}, status="completed")
    lines = rendered(progress)
    assert "best rougeLsum 2 at step 20 (t0001)" in lines
    assert shown_ids(progress) == ["t0001", "t0000"]
    assert [line.split()[-1] for line in lines if line.startswith("t0")] == ["2", "3"]


def test_at_most_twenty_rows_and_the_rest_is_counted() -> None:
    progress, _ = make_progress(num_trials=30)
    for number in range(25):
        run_trial(progress, number, {40: float(number)}, status="completed")
    assert shown_ids(progress) == [f"t{number:04d}" for number in range(24, 4, -1)]
    assert "and 5 more trials" in rendered(progress)


PLACE: dict[str, Any] = {"place": "cluster 10.0.0.1:6379, 2 nodes, 3 of 4 GPUs", "slots": (32,) * 3}


def make_crowd(console: Console, **kwargs: Any) -> ProgressTable:
    """256 trials, of which 85 train in three packs and the others have ended."""
    name = "evaluate:my_metric\x1b[2J:a_long_key"
    metric = Metric(name=name)
    progress = ProgressTable(metric, 256, 40, console=console, **PLACE, **kwargs)
    for number in range(256):
        config, report = make_config(number), make_report(number, 10 + number % 20, 30 + number)
        progress.on_trial_start(config, number)
        progress.on_report(
            config, replace(report, metrics={name: 30.0 + number}, pack="abc"[number % 3])
        )
        if number >= 85:
            progress.on_trial_end(config, "stopped" if number % 9 else "failed", "r" * 300)
    progress.on_trial_start(make_config(84), 84)  # after its pack has died
    return progress


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("height", [24, 40, 60])
def test_crowd_keeps_to_one_screen(width: int, height: int) -> None:
    console = SafeConsole(io.StringIO(), force_terminal=True, width=width, height=height)
    progress = make_crowd(console)
    texts = drawn(console, progress)
    assert height - 1 >= len(texts) >= min(height - 1, MAX_ROWS)
    assert max(map(len, texts)) <= width
    assert "cluster 10.0.0.1:6379, 2 nodes, 3 of 4 GPUs" in texts
    assert "3 packs of 32 slots: 28, 28, 28 training, 1 not reported yet" in texts
    heading = next(text.split() for text in texts if text.startswith("trial"))
    rows = [text.split() for text in texts if text.startswith("t0")]
    assert {"trial", "step", "status"} <= set(heading) and "running" in rows[0]
    assert ({"rank", "learning", "dropout", "alpha", "best"} <= set(heading)) == (width >= 80)
    assert texts[-1] == f"and {256 - len(rows)} more trials"


def test_reasons_take_the_room_that_is_left() -> None:
    for width, room in ((110, True), (62, False)):
        console = Console(file=io.StringIO(), force_terminal=True, width=width, height=24)
        progress = ProgressTable(METRIC, 1, 40, console=console)
        run_trial(progress, 0, {10: 20.0}, status="failed", reason="r" * 300)
        lines = drawn(console, progress)
        assert max(map(len, lines)) <= width
        assert lines[-1].endswith("rrrrrrrrrrrr…") == room
        assert lines[-2].endswith(" reason") == room


def test_before_the_first_report_and_with_one_pack_all_are_counted_together() -> None:
    for slots in ((32, 32, 32), (32,)):
        progress, _ = make_progress(**PLACE | {"slots": slots})
        run_trial(progress, 0, {})
        run_trial(progress, 1, {10: 1.0} if len(slots) == 1 else {})
        assert rendered(progress)[4].endswith("of 32 slots: 2 training")


def test_many_packs_are_told_by_the_fullest_and_the_emptiest() -> None:
    progress, _ = make_progress(**PLACE | {"slots": (4,) * 12})
    for number in range(9):
        progress.on_trial_start(make_config(number), number)
        report = replace(make_report(number, 10, 1.0), pack=f"p{number // 4}")
        progress.on_report(make_config(number), report)
    assert "12 packs of 4 slots: 0 to 4 training" in rendered(progress)
    run_trial(progress, 8, {10: 1.0}, status="completed")
    assert "12 packs of 4 slots: 0 to 4 training" in rendered(progress)


@pytest.mark.parametrize(
    ("address", "num_nodes", "num_gpus", "slots", "told"),
    [
        ("10.0.0.1:6379", 2, 4, (32,) * 3, "2 nodes, 3 of 4 GPUs, 3 packs of 32 slots"),
        ("10.0.0.1:6379", 2, 4, (4, 32, 32), "3 of 4 GPUs, 1 pack of 4 and 2 packs of 32 slots"),
        ("10.0.0.1:6379", 1, 3, (32,) * 3, "1 node, 3 GPUs, 3 packs of 32 slots"),
        ("local", 1, 1, (32,), "this machine, 1 GPU, 1 pack of 32 slots"),
        ("local", 1, 0, (), "this machine, 64 CPU cores"),
    ],
)
def test_place_is_told_once_before_plain_lines(
    address: str, num_nodes: int, num_gpus: int, slots: tuple[int, ...], told: str
) -> None:
    cluster: Any = SimpleNamespace(
        address=address, is_local=address == "local", num_nodes=num_nodes, num_gpus=num_gpus
    )
    allocation: Any = SimpleNamespace(num_gpus=len(slots), num_cpus=64)
    place = describe_place(cluster, allocation)
    assert place.startswith("this machine, " if cluster.is_local else f"cluster {address}, ")
    progress, out = make_progress(is_terminal=False, place=place, slots=slots)
    with progress:
        run_trial(progress, 0, {10: 20.0})
    assert out.getvalue().splitlines()[0].endswith(told)
    assert out.getvalue().count(told) == 1


def test_output_that_shows_ascii_only_gets_ascii_only() -> None:
    shown = io.BytesIO()
    ascii_only = io.TextIOWrapper(shown, encoding="ascii", errors="strict")
    for is_terminal in (True, False):
        console = SafeConsole(ascii_only, force_terminal=is_terminal, width=70, height=24)
        with make_crowd(console) as progress:
            progress.on_trial_start(make_config(300), 300)
    ascii_only.flush()
    assert b"t0300" in shown.getvalue() and b"\x1b[2J" not in shown.getvalue()


def test_without_colours_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    with make_crowd(SafeConsole(out, force_terminal=True, width=100, height=24)):
        pass
    assert "running" in out.getvalue() and not re.findall(r"\x1b\[[\d;]*3\d", out.getvalue())


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    progress, out = make_progress()
    with progress:
        run_trial(progress, 0, {10: 20.0})
    assert out.getvalue().startswith("t0000 started: ") and "\x1b" not in out.getvalue()


def test_time_left_is_asked_for_whenever_the_table_is_drawn() -> None:
    answer: list[float | None] = [None]
    progress, _ = make_progress(left_s=lambda: answer[0])
    for answer[0], told in ((None, "–"), (470.4, "0:07:50"), (0.0, "0:00:00")):  # noqa: RUF001
        assert rendered(progress)[2].endswith(f"left {told}")


def test_finals_of_a_search_that_ended_early_are_counted_with_its_trials_only() -> None:
    progress, _ = make_progress(num_trials=30)
    run_trial(progress, 0, {40: 1.0}, status="completed")
    run_trial(progress, 1, {10: 1.0}, status="stopped")
    params = make_config(0).params
    runs = [
        TrialRecord(trial_id=f"f0000s{n}", number=0, params=params, final_of="t0000", seed=n)
        for n in (1, 2)
    ]
    progress.on_finals_start(runs)
    assert rendered(progress)[0] == "2/4 done, 0 running, 0 failed"


def test_resume_shows_what_was_done_before() -> None:
    histories = [
        TrialRecord(
            trial_id="t0000",
            number=0,
            params=make_config(0).params,
            status="failed",
            reason="loss is nan",
            reports=[make_report(0, 10, 20.0)],
        ),
        TrialRecord(
            trial_id="t0001",
            number=1,
            params=make_config(1).params,
            reports=[make_report(1, 10, 25.0), make_report(1, 20, 24.0)],
        ),
    ]
    progress, _ = make_progress(histories=histories)
    lines = rendered(progress)
    assert lines[0] == "1/8 done, 0 running, 1 failed"
    assert [line.split()[:3] for line in lines if line.startswith("t0")] == [
        ["t0001", "waiting", "20/40"],
        ["t0000", "failed", "10/40"],
    ]
    assert any(line.endswith("loss is nan") for line in lines)
    run_trial(progress, 1, {40: 30.0}, status="completed")
    lines = rendered(progress)
    assert lines[:2] == ["2/8 done, 0 running, 1 failed", "best rougeLsum 30 at step 40 (t0001)"]


def test_reason_is_shown_literally_on_one_line() -> None:
    reason = "[red]no[/red] \x1b[2J\nsecond [/] line"
    for is_terminal in (True, False):
        progress, out = make_progress(is_terminal=is_terminal)
        with progress:
            run_trial(progress, 0, {}, status="failed", reason=reason)
        assert "[red]no[/red] [2J second [/] line" in out.getvalue()
        assert "\x1b[2J" not in out.getvalue()
        assert any("[red]no[/red]" in line for line in rendered(progress))


def test_without_a_terminal_every_event_is_one_plain_line() -> None:
    progress, out = make_progress(is_terminal=False)
    with progress:
        run_trial(progress, 0, {10: 20.0, 20: float("nan")}, status="failed", reason="r" * 300)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 and "\x1b" not in out.getvalue()
    assert lines[0].startswith(
        "t0000 started: lora_rank 8, lora_alpha 16, lora_dropout 0, learning_rate 2.00e-04 | "
        "0/8 done, 1 running, 0 failed, best rougeLsum –, elapsed "  # noqa: RUF001
    )
    assert lines[1].startswith("t0000 step 10/40: rougeLsum 20 (best 20) | ")
    assert lines[2].startswith("t0000 step 20/40: rougeLsum – (best 20) | ")  # noqa: RUF001
    assert lines[3].startswith(f"t0000 failed at step 20/40: {'r' * 300} | 1/8 done, 0 running")


@pytest.mark.parametrize("is_full", [False, True])
def test_output_that_nobody_takes_does_not_end_the_sweep(is_full: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY) if is_full else writer, "w")
    progress = ProgressTable(METRIC, 8, 40, console=SafeConsole(stream))
    with progress:
        run_trial(progress, 0, {10: 20.0}, status="failed", reason="r")
    with suppress(OSError):
        stream.close()


def test_exception_gives_the_terminal_back() -> None:
    progress, out = make_progress()
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), progress:
        run_trial(progress, 0, {10: 20.0})
        (drawer,) = set(threading.enumerate()) - before
        raise ZeroDivisionError
    drawer.join(timeout=60.0)
    assert not drawer.is_alive()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert out.getvalue().count(hide) == out.getvalue().count(show) == 1
    assert "t0000" in out.getvalue()


def test_trials_may_be_told_while_another_thread_draws() -> None:
    progress, _ = make_progress(num_trials=400)

    def tell() -> None:
        for number in range(400):
            run_trial(progress, number, {40: 1.0}, status="completed")

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        teller = threading.Thread(target=tell)
        teller.start()
        num_drawn = 0
        while teller.is_alive():
            progress.render()
            num_drawn += 1
        teller.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert num_drawn > 3
    assert rendered(progress)[0] == "400/400 done, 0 running, 0 failed"


def test_printing_a_failure_while_the_table_is_drawn_does_not_lock_up() -> None:
    progress, out = make_progress(num_trials=50)
    between_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that few trials do: the threads interrupt each other often

    def fail_trials() -> None:
        for number in range(50):
            run_trial(progress, number, {}, status="failed", reason="out of memory")

    with progress:
        teller = threading.Thread(target=fail_trials, daemon=True)
        drawer = threading.Thread(
            target=lambda: [progress._live.refresh() for _ in range(25)], daemon=True
        )
        teller.start()
        drawer.start()
        teller.join(timeout=120.0)
        drawer.join(timeout=120.0)
        sys.setswitchinterval(between_s)
        assert not teller.is_alive() and not drawer.is_alive()
    assert "t0049 failed at step 0/40: out of memory" in out.getvalue()
