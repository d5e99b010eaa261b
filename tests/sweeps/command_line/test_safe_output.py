"""What data or servers say cannot steer a terminal, whichever command or library prints it."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from rich.text import Text

from sweeps.cli import run_command
from sweeps.command_line.consoles import SafeConsole
from sweeps.command_line.safe_output import SafeStream, make_safe
from tests.sweeps.commands import HANG_S, start, world

HOSTILE = "a\x1b]0;owned\x07b\x1b[2J\x9b31m\r\u202ec"
SHOWN = "a ]0;owned b [2J 31m  c"


def test_controls_become_blanks_and_letters_stay() -> None:
    assert make_safe(HOSTILE) == SHOWN
    kept = "Ünïcode ß\u200d\u00a0é\n\t– 数 🙂"  # noqa: RUF001
    assert make_safe(kept) == kept


def test_whatever_a_command_prints_is_safe(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        print("column", HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        print(HOSTILE, file=sys.stderr)
        return 0

    with pytest.raises(SystemExit):
        run_command(main)
    assert capsys.readouterr() == (f"column {SHOWN}\n{SHOWN}\n", f"{SHOWN}\n")


def test_progress_bars_of_libraries_still_draw_on_standard_error() -> None:
    shown = io.StringIO()
    stream = SafeStream(cast(io.TextIOWrapper, shown), is_error=True)
    for text in ("\r 50%", "\n", "\x1b[A", "\rfile \x1b[A\r"):
        stream.write(text)
    assert shown.getvalue() == "\r 50%\n\x1b[A\rfile  [A "


def test_warnings_and_tracebacks_show_no_secret_and_data_stays(tmp_path: Path) -> None:
    code = (
        "import logging; from sweeps.cli import run_command\n"
        "def main():\n"
        "    print('data a:longs3cret@b')\n"
        "    logging.getLogger('x').warning('refused longs3cret')\n"
        "    raise RuntimeError('http://me:pass@host said longs3cret')\n"
        "run_command(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=world(tmp_path) | {"JUDGE_API_KEY": "longs3cret"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.stdout == "data a:longs3cret@b\n"
    assert "WARNING: refused REDACTED" in done.stderr and "s3cret" not in done.stderr
    assert "RuntimeError: http://me:REDACTED@host said REDACTED" in done.stderr


def test_console_keeps_its_own_colours_only() -> None:
    shown = io.StringIO()
    console = SafeConsole(shown, force_terminal=True, color_system="standard", _environ={})
    console.print(Text(HOSTILE, style="red"))
    text = shown.getvalue().removeprefix("\x1b[31m").removesuffix("\x1b[0m\n")
    assert text.replace(" ", "") == SHOWN.replace(" ", "")  # rich leaves some controls out


def test_colours_are_for_terminals_even_if_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not SafeConsole(io.StringIO()).is_terminal


@pytest.mark.slow
@pytest.mark.parametrize("is_wrong", [False, True])
def test_columns_and_labels_with_escapes_are_shown_harmless(tmp_path: Path, is_wrong: bool) -> None:
    rows = [{f"text{HOSTILE}": f"x{i}", "label": f"{HOSTILE}{i % 2}"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = ("--input", "nothing" if is_wrong else f"text{HOSTILE}", "--target", "label")
    words = ("table", "--tiny", "--data", "rows.jsonl", *names, "--kind", "classify", "--dry-run")
    ended = start("sweeps.run", *words, folder=tmp_path)
    assert ended.code == (2 if is_wrong else 0), ended.stderr
    said = ended.stdout + ended.stderr
    assert "owned" in said
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(said)


def test_help_has_colours_on_a_terminal(tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "sweeps.run", "--help"],
        cwd=tmp_path,
        env=world(tmp_path) | {"TERM": "xterm"},
        stdout=side,
    )
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # at its end
        while more := os.read(terminal, 4096):
            shown += more
    assert done.wait(timeout=HANG_S) == 0
    os.close(terminal)
    assert b"\x1b[" in shown
