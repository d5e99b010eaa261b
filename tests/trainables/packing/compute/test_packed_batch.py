"""Passes of a pack: every slot's rows end to end, and their labels, words and blocks in place."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import max_examples
from tests.trainables.packing.small_packs import longer
from trainables.config import TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.packing.compute.kernels.inputs import BLOCK_TOKENS
from trainables.packing.compute.masks import row_key
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedInputs,
    pack_batch,
    shape_of,
    split_by_size,
    unpack_inputs,
)
from trainables.packing.compute.pass_shapes import STEPS_AN_OCTAVE, Rounding

ids = st.lists(st.integers(1, 99), min_size=1, max_size=90)
some_rows = st.lists(st.builds(Example.from_ids, ids, ids), min_size=1, max_size=3)
some_groups = st.lists(some_rows | st.none(), min_size=1, max_size=4).filter(any)


def micro_batch_of(
    slot: int, rows: list[Example], rate: float = 0.25, first_row: int = 0
) -> MicroBatch:
    return MicroBatch(slot, rows, first_row, 7, 3, rate, 0.5)


def pass_of(micro_batches: list[MicroBatch], num_slots: int, rounding: Rounding) -> PackedInputs:
    packed = pack_batch(micro_batches, shape_of(micro_batches, num_slots, rounding))
    return unpack_inputs(torch.from_numpy(packed.numbers), packed.shape)


@max_examples(40)
@given(groups=some_groups, rounding=st.sampled_from(["exact", "recurring", "fine"]))
def test_every_token_and_label_is_in_its_place(
    groups: list[list[Example] | None], rounding: Rounding
) -> None:
    micro_batches = [micro_batch_of(slot, rows) for slot, rows in enumerate(groups) if rows]
    batch = pass_of(micro_batches, len(groups), rounding)
    found_labels = labels_by_slot(batch, len(groups))
    row_number = token = 0
    for slot, rows in enumerate(groups):
        first, end = batch.segments.bounds_K2[slot].tolist()
        assert end - first == sum(len(row.input_ids) for row in rows or [])
        assert found_labels[slot] == [label for row in rows or [] for label in row.target_ids]
        for place, row in enumerate(rows or []):
            start, stop = batch.rows.bounds_S1[row_number : row_number + 2].tolist()
            assert start == token and batch.ids_N[start:stop].tolist() == row.input_ids
            assert batch.position_ids_N[start:stop].tolist() == list(range(stop - start))
            assert batch.segments.slots_N[start:stop].eq(slot).all()
            assert batch.dropout is not None
            words = {tuple(pair) for pair in batch.dropout.words_N2[start:stop].tolist()}
            assert words == {row_key(7, 3, place)}
            assert stop - start <= batch.rows.longest
            row_number, token = row_number + 1, stop


def labels_by_slot(batch: PackedInputs, num_slots: int) -> list[list[int]]:
    """The labels; the token after a label's place must be the label."""
    found: list[list[int]] = [[] for _ in range(num_slots + 1)]
    parts = (batch.label_index_L, batch.targets_L, batch.label_slots_L)
    for place, target, slot in zip(*(part.tolist() for part in parts), strict=True):
        assert slot == num_slots or int(batch.ids_N[place + 1]) == target
        found[slot].append(target)
    return found


@max_examples(40)
@given(groups=some_groups)
def test_what_fills_up_a_pass_is_little_and_belongs_to_nobody(
    groups: list[list[Example] | None],
) -> None:
    micro_batches = [micro_batch_of(slot, rows) for slot, rows in enumerate(groups) if rows]
    packed = pack_batch(micro_batches, shape_of(micro_batches, len(groups), "recurring"))
    batch = unpack_inputs(torch.from_numpy(packed.numbers), packed.shape)
    num_real = sum(micro_batch.num_tokens for micro_batch in micro_batches)
    assert packed.num_real == num_real
    assert len(batch.ids_N) - num_real < max(BLOCK_TOKENS, num_real / STEPS_AN_OCTAVE + 1)
    assert int(batch.rows.bounds_S1[-1]) == len(batch.ids_N)
    lengths = np.diff(batch.rows.bounds_S1.numpy())
    assert lengths.min() >= 0 and lengths.max() <= batch.rows.longest
    assert int(batch.segments.bounds_K2.max()) == num_real


@max_examples(40)
@given(groups=some_groups, rounding=st.sampled_from(["exact", "recurring", "fine"]))
def test_blocks_cover_every_slot_once_and_no_other_token(
    groups: list[list[Example] | None], rounding: Rounding
) -> None:
    micro_batches = [micro_batch_of(slot, rows) for slot, rows in enumerate(groups) if rows]
    batch = pass_of(micro_batches, len(groups), rounding)
    owners = torch.full((len(batch.ids_N),), -1)
    for slot, first, end in batch.segments.blocks_B3.tolist():
        assert 0 <= end - first <= BLOCK_TOKENS
        assert (owners[first:end] == -1).all()
        owners[first:end] = slot
    for slot, (first, end) in enumerate(batch.segments.bounds_K2.tolist()):
        assert (owners[first:end] == slot).all()
        owners[first:end] = -1
    assert (owners == -1).all()


def test_passes_of_a_task_have_few_shapes(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    batches = Batches(examples, longer(settings, 60))
    shapes = set()
    for step in range(1, 41):
        rows = [batches.get_step_rows(step + late) for late in (0, 3, 8, 11, 14, 17, 19, 20)]
        micro_batches = [micro_batch_of(slot, own) for slot, own in enumerate(rows)]
        shapes.add(pack_batch(micro_batches, shape_of(micro_batches, 8, "recurring")).shape)
    assert len(shapes) < 8


def test_dropout_words_count_rows_across_units() -> None:
    batch = pass_of([micro_batch_of(0, [Example.from_ids([1], [2])], first_row=4)], 1, "exact")
    assert batch.dropout is not None
    assert batch.dropout.words_N2.tolist() == [list(row_key(7, 3, 4))] * 2
    assert batch.label_weights_K.tolist() == [0.5]
    plain = micro_batch_of(0, [Example.from_ids([1], [2])], rate=0.0)
    assert pass_of([plain], 1, "exact").dropout is None


@max_examples(40)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20), most=st.integers(1, 120))
def test_groups_hold_the_items_in_order_and_no_more_than_fits(
    lengths: list[int], most: int
) -> None:
    made = split_by_size(list(enumerate(lengths)), lengths, most)
    assert [item for together in made for item in together] == list(enumerate(lengths))
    sizes = [sum(size for _, size in together) for together in made]
    assert all(len(one) == 1 or size <= most for one, size in zip(made, sizes, strict=True))
    for size, following in zip(sizes, made[1:], strict=False):
        assert size + following[0][1] > most


def test_course_is_the_common_order(settings: TrainingSettings, examples: list[Example]) -> None:
    whole = Batches(examples, longer(settings, 30))
    batches = Batches(examples, settings)
    rows = [batches.get_step_rows(step) for step in range(1, 5)]
    assert rows == [whole.get_step_rows(step) for step in range(1, 5)]
    assert batches.count_tokens(2) == sum(len(row.input_ids) for step in rows[:2] for row in step)
    assert batches.compute_epoch(2) == 2 * settings.batch_size / len(examples)
    assert batches.longest == max(len(example.input_ids) for example in examples)


@given(some_groups, some_groups)
def test_a_shape_that_holds_another_has_room_for_its_rows(
    groups: list[list[Example] | None], others: list[list[Example] | None]
) -> None:
    num_slots = max(len(groups), len(others))
    first, second = (
        [micro_batch_of(slot, rows) for slot, rows in enumerate(some) if rows]
        for some in (groups, others)
    )
    wanted, other = (
        shape_of(micro_batches, num_slots, "recurring") for micro_batches in (first, second)
    )
    assert wanted.holds(wanted)
    if not other.holds(wanted):
        return
    exact = pack_batch(first, wanted)
    packed = pack_batch(first, other)
    numbers, expected = (
        unpack_inputs(torch.from_numpy(one.numbers), one.shape) for one in (packed, exact)
    )
    num_real = packed.num_real
    assert num_real == exact.num_real
    assert numbers.rows.bounds_S1[-1] == other.num_tokens
    for name in ("ids_N", "position_ids_N"):
        assert torch.equal(getattr(numbers, name)[:num_real], getattr(expected, name)[:num_real])
    num_labels = sum(len(row.target_ids) for micro_batch in first for row in micro_batch.rows)
    for name in ("label_index_L", "targets_L", "label_slots_L"):
        found = getattr(numbers, name)
        assert torch.equal(found[:num_labels], getattr(expected, name)[:num_labels])
    assert (numbers.label_slots_L[num_labels:] == num_slots).all()
