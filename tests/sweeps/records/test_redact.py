"""What others may read holds no secret, and is in one line."""

import pytest

from sweeps.records.redact import hide_secrets, join_lines, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:////runs/x/optuna.db", None),
        ("postgresql+psycopg://bob@host/db", None),
        ("http://127.0.0.1:5000 and mailto:me@x.org or t@x.org, 12:30 @noon", None),
        ("hub:USER/NAME, {a: b}, say a:b", None),
        ("postgresql://bob:s3cret@host:5/db", "postgresql://bob:REDACTED@host:5/db"),
        ("postgresql://bob:s3/c@ret@host/db", "postgresql://bob:REDACTED@host/db"),
        ("of https://s3cret@host/x: no", "of https://REDACTED@host/x: no"),
        ("bob:s3cret@host", "bob:REDACTED@host"),
        ("pg:///db?password=s3cret&user=b", "pg:///db?password=REDACTED&user=b"),
        ("pg:///db?user=b&passwd=s3cret", "pg:///db?user=b&passwd=REDACTED"),
        ("pg:///db?password=s3#cret&user=b", "pg:///db?password=REDACTED&user=b"),
        ("run --hub-token s3cret --name x", "run --hub-token REDACTED --name x"),
        ("WANDB_API_KEY=s3cret run", "WANDB_API_KEY=REDACTED run"),
        ("401 for hf_abcdefABCDEF", "401 for REDACTED"),
        ("401 for longs3cret", "401 for REDACTED"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(
    text: str, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "longs3cret\n")
    assert hide_secrets(text) == (shown or text)


def test_home_folder_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    told = "run --data /home/somebody/rows.csv"
    assert redact(told) == "run --data ~/rows.csv" and hide_secrets(told) == told


def test_lines_are_joined_and_blanks_of_a_path_stay() -> None:
    assert join_lines(" refused\r\n  by\x1b[31m /a  b\n") == "refused by [31m /a  b"
