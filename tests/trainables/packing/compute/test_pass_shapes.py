"""Sizes of passes, and the choice among those that are captured."""

from hypothesis import given
from hypothesis import strategies as st

from trainables.packing.compute.kernels.inputs import BLOCK_TOKENS
from trainables.packing.compute.pass_shapes import (
    MAX_TOKENS_RATIO,
    PATIENCE,
    STEPS_AN_OCTAVE,
    Shape,
    ShapeChoice,
    round_up_to_bucket,
)


def shape(num_tokens: int, num_rows: int = 8, num_labels: int = 64, longest: int = 256) -> Shape:
    return Shape(2, num_tokens, num_rows, num_labels, longest, num_tokens, True, True)


@given(st.integers(1, 100_000))
def test_a_pass_holds_its_tokens_and_few_more(num_tokens: int) -> None:
    padded_tokens = round_up_to_bucket(num_tokens, BLOCK_TOKENS)
    assert num_tokens <= padded_tokens <= num_tokens * (1 + 1 / STEPS_AN_OCTAVE) + BLOCK_TOKENS


def test_a_little_larger_captured_shape_serves_until_the_wanted_one_pays() -> None:
    choice, captured = ShapeChoice(), [shape(1216, 16), shape(1152, 16), shape(4096, 16)]
    wanted = shape(1024)
    assert [choice.among(captured, wanted) for _ in range(PATIENCE)] == [captured[1]] * PATIENCE
    assert choice.among(captured, wanted) == wanted
    assert choice.among([*captured, wanted], wanted) == wanted


def test_each_shape_has_patience_of_its_own() -> None:
    choice, captured = ShapeChoice(), [shape(1152, 16)]
    for _ in range(PATIENCE + 1):
        choice.among(captured, shape(1024))
    assert choice.among(captured, shape(1088)) == captured[0]


def test_a_shape_with_less_room_or_much_more_does_not_serve() -> None:
    wanted = shape(1024, 16, 64, 512)
    others = [
        shape(960, 16, 64, 512),
        shape(round(1024 * MAX_TOKENS_RATIO) + 64, 24, 64, 512),
        shape(1024, 8, 64, 512),
        shape(1024, 40, 64, 512),
        shape(1024, 16, 32, 512),
        shape(1024, 16, 192, 512),
        shape(1024, 16, 64, 256),
        shape(1152, 16, 64, 512),  # no row left for what fills it up
        wanted._replace(has_dropout=False),
    ]
    assert [other for other in others if other.holds(wanted)] == []
    assert shape(1152, 17, 128, 1024).holds(wanted)
