"""Who leaves a full pack for an emptier one: never so many that it becomes the fuller one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.packing.service.client import SETTLED_S, should_move
from trainables.packing.service.events import Presence

SIZES = st.integers(0, 40)


def pack_of(
    size: int, settled_s: float = SETTLED_S, name: str = "t", num_slots: int = 64
) -> Presence:
    return Presence(tuple(f"{name}{number}" for number in range(size)), 0, settled_s, num_slots)


def movers(own: Presence, others: list[Presence]) -> list[str]:
    return [trial_id for trial_id in own.trial_ids if should_move(trial_id, own, others)]


@pytest.mark.parametrize(
    ("num_own", "num_others", "num_movers"),
    [(14, [0], 7), (2, [0], 1), (1, [0], 0), (3, [1], 0), (4, [1], 1), (9, [9, 2], 3), (5, [], 0)],
)
def test_half_of_what_one_has_more_moves(
    num_own: int, num_others: list[int], num_movers: int
) -> None:
    own = pack_of(num_own)
    found = movers(own, [pack_of(size, name="u") for size in num_others])
    assert found == list(own.trial_ids[num_own - num_movers :])


@given(SIZES, st.lists(SIZES, min_size=1, max_size=8))
def test_moves_end_and_leave_the_fuller_pack_no_emptier_than_the_other(
    num_own: int, num_others: list[int]
) -> None:
    least = min(num_others)
    num_moves = 0
    while found := movers(pack_of(num_own), [pack_of(least, name="u")]):
        num_own, least = num_own - len(found), least + len(found)
        assert num_own >= least
        num_moves += 1
    assert num_moves <= 1


@pytest.mark.parametrize(("num_there", "num_movers"), [(4, 0), (3, 1), (0, 4)])
def test_no_more_move_than_fit_into_the_pack_of_a_smaller_gpu(
    num_there: int, num_movers: int
) -> None:
    small = pack_of(num_there, name="u", num_slots=4)
    assert len(movers(pack_of(14), [small])) == num_movers


def test_nobody_moves_to_a_pack_that_may_still_be_filling_up() -> None:
    assert not movers(pack_of(14), [pack_of(0, settled_s=0.9 * SETTLED_S)])


@given(st.integers(2, 40))
def test_who_asks_while_others_are_on_the_way_decides_as_they_did(num_own: int) -> None:
    """They ask one after the other, and have joined the other pack only after the last."""
    own = pack_of(num_own)
    expected = movers(own, [pack_of(0, name="u")])
    for mover in expected:
        assert should_move(mover, own, [pack_of(0, name="u")])
        staying = tuple(trial_id for trial_id in own.trial_ids if trial_id != mover)
        own = own._replace(trial_ids=staying, num_moving=own.num_moving + 1)
    assert not movers(own, [pack_of(0, name="u")])


def test_a_trial_that_its_pack_does_not_know_stays() -> None:
    assert not should_move("u0", pack_of(14), [pack_of(0)])
