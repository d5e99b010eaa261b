"""Batches of a pack: rows in the common order, padded, shared, and their labels in place."""

import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from small_packs import longer

from trainables.batches import Batches
from trainables.config import TrainingSettings
from trainables.examples import IGNORED, Example
from trainables.packing.batch import (
    LABELS_MULTIPLE,
    TOKENS_MULTIPLE,
    Course,
    MicroBatch,
    Part,
    assemble,
)
from trainables.packing.masks import row_key

CPU = torch.device("cpu")
ids = st.lists(st.integers(1, 99), min_size=1, max_size=90)
some_rows = st.lists(st.builds(Example, ids, ids), min_size=1, max_size=3)


def part_of(rows: list[Example], key: object, step: int = 1, first_row: int = 0) -> Part:
    return Part(rows, first_row, 7, step, key, 0.25)


@budget(max_examples=40, deadline=None)
@given(groups=st.lists(some_rows | st.none(), min_size=1, max_size=4))
def test_every_label_is_at_the_place_that_predicts_it(groups: list[list[Example] | None]) -> None:
    parts = [None if rows is None else part_of(rows, place) for place, rows in enumerate(groups)]
    batch = assemble(parts, 3, CPU)
    assert batch.input_ids_KST.shape[:2] == (len(groups), 3)
    assert batch.input_ids_KST.shape[2] % TOKENS_MULTIPLE == 0
    assert batch.targets_KL.shape[1] % LABELS_MULTIPLE == 0
    for slot, rows in enumerate(groups):
        assert labels_of(batch, slot) == [row.target_ids for row in rows or []]
        for place, row in enumerate(rows or []):
            tokens = batch.input_ids_KST[slot, place]
            assert tokens[: len(row.input_ids)].tolist() == row.input_ids
            assert (tokens[len(row.input_ids) :] == 0).all()
    real = sum(len(row.input_ids) for rows in groups for row in rows or [])
    assert batch.real_frac == real / batch.input_ids_KST.numel()


def labels_of(batch: MicroBatch, slot: int) -> list[list[int]]:
    """The labels by row; the token after a label's place must be the label."""
    num_tokens = batch.input_ids_KST.shape[2]
    tokens = batch.input_ids_KST[slot].flatten()
    rows: dict[int, list[int]] = {}
    pairs = zip(batch.label_places_KL[slot].tolist(), batch.targets_KL[slot].tolist(), strict=True)
    for place, target in pairs:
        if target != IGNORED:
            assert int(tokens[place + 1]) == target
            rows.setdefault(place // num_tokens, []).append(target)
    return list(rows.values())


def test_parts_with_one_key_share_their_rows() -> None:
    rows = [Example([1, 2], [3])]
    batch = assemble([part_of(rows, "a"), None, part_of([], "a", step=5)], 2, CPU)
    assert torch.equal(batch.input_ids_KST[0], batch.input_ids_KST[2])
    assert torch.equal(batch.targets_KL[0], batch.targets_KL[2])
    assert (batch.targets_KL[1] == IGNORED).all()
    assert not torch.equal(batch.row_keys_KS2[0], batch.row_keys_KS2[2])


def test_dropout_words_count_rows_across_micro_batches() -> None:
    batch = assemble([part_of([Example([1], [2])], "a", step=3, first_row=4)], 2, CPU)
    assert batch.label_weights_K.tolist() == [0.25]
    assert batch.row_keys_KS2.tolist() == [[list(row_key(7, 3, 4)), list(row_key(7, 3, 5))]]


def test_course_is_the_common_order_from_its_offset(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    whole = Batches(examples, longer(settings, 30))
    course = Course(examples, settings, 26)
    rows = [course.step_rows(step) for step in range(1, 5)]
    assert rows == [whole.step_rows(step) for step in range(27, 31)]
    assert course.tokens(2) == sum(len(row.input_ids) for step in rows[:2] for row in step)
    assert course.epoch(2) == 2 * settings.batch_size / len(examples)
    assert course.order_key == Course(examples, longer(settings, 9), 0).order_key
    assert course.order_key != Course(examples, longer(settings, 9, seed=8), 0).order_key


def test_common_places_waste_little_padding(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    course = Course(examples, settings, 0)
    parts = [part_of(course.step_rows(1), "a") for _ in range(8)]
    assert assemble(parts, settings.batch_size, CPU).real_frac > 0.5
