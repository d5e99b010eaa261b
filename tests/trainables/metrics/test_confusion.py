"""The table of which labels are taken for which."""

import csv
import io

from trainables.metrics.confusion import confusion


def test_rows_are_targets_and_columns_predictions() -> None:
    table = confusion(["no", "no", "yes"], ["yes", "no", "yes"], ["yes", "no"])
    assert table.counts == ((1, 1), (0, 1))
    assert table.labels == ("yes", "no")


def test_csv_names_every_row_and_column_whatever_the_labels_hold() -> None:
    labels = ("a,b", 'say "no"', "two\nlines", "çok")
    text = confusion(labels, labels, labels).as_csv()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["target", *(f"predicted {label}" for label in labels)]
    assert [row[0] for row in rows] == list(labels)
    assert [row[1:] for row in rows] == [
        ["1" if place == other else "0" for other in range(4)] for place in range(4)
    ]
