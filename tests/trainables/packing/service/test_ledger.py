"""A pack's time by activity and by trial: nothing is lost, nothing is counted twice."""

import dataclasses
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.packing.service import ledger
from trainables.packing.service.ledger import (
    Ledger,
    LedgerKeeper,
    Share,
    read_ledgers,
    write_ledger,
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1e9 + self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(ledger.time, "monotonic", found.monotonic)
    monkeypatch.setattr(ledger.time, "time", found.time)
    return found


def test_a_step_is_divided_by_the_tokens_of_its_trials(clock: Clock) -> None:
    keeper = LedgerKeeper("cpu")
    keeper.begin_activity("train")
    clock.now_s += 8.0
    keeper.charge({"t0": 300, "t1": 100}, "trained")
    keeper.begin_activity("evaluate")
    clock.now_s += 4.0
    keeper.charge({"t1": 50}, "scored")
    shares = keeper.copy_ledger().shares
    assert shares["t0"] == Share(seconds=6.0, trained_tokens=300)
    assert shares["t1"] == Share(seconds=2.0 + 4.0, trained_tokens=100, scored_tokens=50)


def test_time_that_belongs_to_no_trial_is_overhead(clock: Clock) -> None:
    keeper = LedgerKeeper("cpu", since_s=90.0)
    keeper.begin_activity("idle")
    clock.now_s += 5.0
    keeper.begin_activity("train")
    clock.now_s += 2.0
    keeper.charge({"t0": 1}, "trained")
    keeper.begin_activity("decide")
    clock.now_s += 3.0
    found = keeper.copy_ledger()
    assert found.seconds["load"] == 10.0  # since before the keeper was made
    assert found.wall_s == 20.0
    assert found.shares == {"t0": Share(seconds=2.0, trained_tokens=1)}
    assert found.started == 1e9 + 90.0


def test_looking_at_the_ledger_moves_no_time_between_trials(clock: Clock) -> None:
    keeper = LedgerKeeper("cpu")
    keeper.begin_activity("train")
    clock.now_s += 3.0
    keeper.copy_ledger()
    clock.now_s += 1.0
    keeper.charge({"t0": 7}, "trained")
    assert keeper.get_seconds("t0") == 4.0


def test_a_charge_without_trials_leaves_its_time_to_the_overhead(clock: Clock) -> None:
    keeper = LedgerKeeper("cpu")
    keeper.begin_activity("report")
    clock.now_s += 3.0
    keeper.charge({}, "saved")
    keeper.charge({"t0": 0}, "trained")
    keeper.begin_activity("train")
    clock.now_s += 1.0
    keeper.charge({"t0": 1}, "trained")
    assert keeper.get_seconds("t0") == 1.0


def test_loop_hangs_in_what_takes_far_longer_than_as_much_ever_did(clock: Clock) -> None:
    """The first rungs may score few rows of few trials, and the last many of many."""
    keeper = LedgerKeeper("cpu")

    def is_overdue_after(seconds: float) -> bool:
        clock.now_s += seconds
        return "its loop hangs: evaluate for " in keeper.describe_overdue()

    assert not is_overdue_after(1e6)  # loading may take any time
    keeper.begin_activity("evaluate", 10)
    assert not is_overdue_after(ledger.FIRST_OVERDUE_AFTER_S) and is_overdue_after(11.0)
    keeper = LedgerKeeper("cpu")
    keeper.begin_activity("evaluate", 10)
    clock.now_s += 60.0
    keeper.begin_activity("idle")
    assert not is_overdue_after(1e6)
    keeper.begin_activity("evaluate", 1000)
    assert not is_overdue_after(20 * 6.0 * 1000) and is_overdue_after(1.0)


ACTS = st.lists(
    st.tuples(
        st.floats(0.0, 9.0),
        st.sampled_from(("turn", "charge", "look")),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 500)),
    ),
    max_size=30,
)


@given(acts=ACTS)
def test_activities_sum_to_the_wall_time_and_shares_to_no_more_whatever_happens(
    acts: Sequence[tuple[float, str, dict[str, int]]],
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.time, "monotonic", clock.monotonic)
        keeper = LedgerKeeper("cpu")
        for seconds, act, amounts in acts:
            clock.now_s += seconds
            if act == "turn":
                keeper.begin_activity("train")
            elif act == "charge":
                keeper.charge(amounts, "trained")
            else:
                keeper.copy_ledger()
        found = keeper.copy_ledger()
    assert found.wall_s == pytest.approx(clock.now_s - 100.0)
    charged_s = sum(share.seconds for share in found.shares.values())
    assert charged_s <= found.wall_s + 1e-9


def made(name: str) -> Ledger:
    return Ledger(
        device=name,
        started=1.5,
        seconds={"load": 2.0, "train": 3.0},
        shares={"t0": Share(seconds=1.0, trained_tokens=5)},
        trial_steps=4,
        real_tokens=5,
        computed_tokens=6,
        peak_gib=0.5,
    )


def test_ledgers_of_all_packs_are_read_back_in_the_order_in_which_they_began(
    tmp_path: Path,
) -> None:
    paths = [ledger.make_ledger_path(tmp_path) for _ in range(3)]
    for path, name in reversed(list(zip(paths, "abc", strict=True))):
        write_ledger(made(name), path)
    assert read_ledgers(tmp_path) == [made(name) for name in "abc"]


def test_a_ledger_that_cannot_be_read_costs_its_figures_only(tmp_path: Path) -> None:
    write_ledger(made("a"), ledger.make_ledger_path(tmp_path))
    wrong = {"shares": None, "seconds": {"train": "x"}, "device": None, "started": []}
    damaged = [dataclasses.asdict(made("b")) | {name: value} for name, value in wrong.items()]
    for text in ('{"device": "b"', "[]", "[" * 100_000, *map(json.dumps, damaged)):
        ledger.make_ledger_path(tmp_path).write_text(text)
    assert [one.device for one in read_ledgers(tmp_path)] == ["a"]
    assert read_ledgers(tmp_path / "nowhere") == []


def test_a_reader_finds_a_whole_ledger_while_it_is_written(tmp_path: Path) -> None:
    path = ledger.make_ledger_path(tmp_path)
    write_ledger(made("first"), path)
    has_ended = threading.Event()

    def write() -> None:
        for number in range(200):
            long = {f"t{n}": Share(seconds=float(n)) for n in range(number)}
            write_ledger(dataclasses.replace(made("x"), shares=long), path)
        has_ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    num_looks = 0
    while not has_ended.is_set():
        assert len(read_ledgers(tmp_path)) == 1
        num_looks += 1
        time.sleep(0.001)
    writer.join()
    assert num_looks > 1
