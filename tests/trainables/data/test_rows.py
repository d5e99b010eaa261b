"""The order in which rows are scored."""

from trainables.data.rows import Row, select_fixed_slice

ROWS = [Row(id=str(number), prompt=f"row {number}", target="yes") for number in range(12)]


def test_slice_does_not_depend_on_the_order_of_the_file() -> None:
    small = select_fixed_slice(ROWS, 4)
    assert select_fixed_slice(ROWS[::-1], 9)[:4] == small
    assert small != ROWS[:4]
