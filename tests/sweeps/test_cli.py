"""The command line: help, near flags, and how a command ends, whatever shows its output."""

import errno
import json
import math
import os
import pty
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.capture import CaptureResult

from sweeps.cli import Result, parse, run_command
from tests.sweeps.commands import HANG_S, PROJECT, call, start, tree, world
from trainables.checkpoint import abort_if_disk_fails
from trainables.errors import SweepAborted

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
SCRIPTS: dict[str, str] = PYPROJECT["project"]["scripts"]
COMMANDS = [script.replace("-", ".", 1) for script in SCRIPTS]
HELPS = [("sweeps.run", "--help"), ("sweeps.run", "samsum", "-h"), ("sweeps.trial", "--help")]


@dataclass(frozen=True, kw_only=True)
class Oven:
    """Bakes."""

    num_trays: int = 2
    """Trays to bake."""

    def __post_init__(self) -> None:
        if self.num_trays < 1:
            raise ValueError(f"num_trays is\n{self.num_trays}")


@pytest.mark.parametrize("words", ["--help", "samsum --tiny --dry-run"])
def test_reader_that_has_read_enough_is_no_error(words: str, tmp_path: Path) -> None:
    """What stays unread is more than a pipe holds, or is written when nobody reads any more."""
    command = f"{sys.executable} -m sweeps.run {words} | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=world(tmp_path),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert (ended.stdout, ended.stderr) == ("141\n", "")


def test_connection_that_breaks_is_no_reader_that_has_read_enough(tmp_path: Path) -> None:
    program = (
        "from sweeps.cli import run_command\n"
        "def main(): raise BrokenPipeError('of a socket')\n"
        "run_command(main)"
    )
    words, setting = [sys.executable, "-c", program], world(tmp_path)
    ended = subprocess.run(words, env=setting, capture_output=True, text=True, timeout=HANG_S)
    assert ended.returncode == 1 and "of a socket" in ended.stderr


def test_letters_that_the_output_cannot_show_are_replaced(tmp_path: Path) -> None:
    flags = ("turkish_tweets", "--tiny", "--dry-run")
    ended = start("sweeps.run", *flags, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert (ended.code, ended.stderr) == (0, "")
    assert "?" in ended.stdout


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_explains_every_flag(words: tuple[str, ...]) -> None:
    ended = call(*words)
    assert (ended.code, ended.stderr) == (0, "")
    recipe = "samsum" if "samsum" in words else "RECIPE"
    assert ended.stdout.startswith(f"usage: python -m {words[0]} {recipe} [-h]")
    flags = _flags(ended.stdout)
    assert len(flags) > 30
    unexplained = [flag for flag, text in flags.items() if len(text.split("(default")[0]) < 15]
    assert unexplained == []


def test_help_can_be_shown_in_ascii(tmp_path: Path) -> None:
    ended = start("sweeps.run", "--help", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert (ended.code, ended.stderr) == (0, "")
    assert "--num-trials" in ended.stdout
    assert tree(tmp_path) == {}


def test_near_flag_is_named_on_an_output_that_is_narrow_and_shows_few_letters(
    tmp_path: Path,
) -> None:
    setting = {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    ended = start("sweeps.run", "samsum", "--num-trails", "3", folder=tmp_path, **setting)
    assert ended.refusal() == (
        "Unrecognized options: --num-trails, 3",
        "perhaps you meant --num-trials INT",
    )


def test_near_flag_is_named_on_a_terminal(tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", "samsum", "--num-trails", "3"],
        cwd=tmp_path,
        env=world(tmp_path) | {"TERM": "xterm"},
        stdout=side,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_S,
    )
    os.close(side)
    os.close(terminal)
    assert done.stderr.splitlines() == [
        "error: Unrecognized options: --num-trails, 3",
        "fix: perhaps you meant --num-trials INT",
    ]


def test_values_are_read_by_field_name() -> None:
    assert parse(Oven, ["--num-trays", "3"], "bake") == Oven(num_trays=3)
    assert parse(Oven, [], "bake", Oven(num_trays=4)) == Oven(num_trays=4)


def test_value_that_the_dataclass_refuses_is_told_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: parse(Oven, ["--num-trays", "0"], "bake").num_trays)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: --num-trays is 0\nfix: bake --help.*\n", err)


@pytest.mark.parametrize("code", [0, 1])
def test_json_is_alone_on_standard_output(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"score": math.nan, "text": "ünï\n\x1b[0m", "folder": Path("/runs/a")}

    def main() -> Result:
        print("for people")
        return Result(facts, code)

    with pytest.raises(SystemExit) as ended:
        run_command(main, argv=["a", "--json"])
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert err == "for people\n" and out.isascii() and out.count("\n") == 1
    assert json.loads(out) == {"score": "nan", "text": facts["text"], "folder": "/runs/a"}
    with pytest.raises(SystemExit):
        run_command(main, argv=["a"])
    assert capsys.readouterr() == ("for people\n", "")


def test_interrupt_tells_how_to_go_on_where_that_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> int:
        raise KeyboardInterrupt("go on with: a --resume")

    for argv in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            run_command(main, argv=argv)
        assert ended.value.code == 130
        out, err = capsys.readouterr()
        if not argv:
            assert (out, err) == ("interrupted; go on with: a --resume\n", "")
    assert json.loads(out) == {"error": "interrupted", "fix": "go on with: a --resume"}
    assert err == "interrupted; go on with: a --resume\n"


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_tells_mistakes_as_json(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = _run_as_main(module, ["nowhere", "--json"], monkeypatch, capsys)
    told = json.loads(out)
    assert told.keys() == {"error", "fix"} and all(told.values())
    assert err == f"error: {told['error']}\nfix: {told['fix']}\n"


@pytest.mark.parametrize("result", [(None, 0), (0, 0), (1, 1), (130, 130)])
def test_exit_code_is_what_main_returns(result: tuple[int | None, int]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: result[0])
    assert ended.value.code == result[1]


def test_interrupt_ends_with_130_and_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_full_disk_is_told_with_its_remedy_whatever_was_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: Path("/dev/full").write_text("a"))
    assert ended.value.code == 2
    said = "error: the disk is full\nfix: free space, then repeat the command\n"
    assert capsys.readouterr().err == said
    with pytest.raises(FileNotFoundError):
        run_command(lambda: len(Path("/nowhere/at all").read_text()))


def _write_to_full_disk(*_: object) -> NoReturn:
    Path("/dev/full").write_text("a")
    raise AssertionError


def _save_to_full_disk(*_: object) -> NoReturn:
    with abort_if_disk_fails(Path("/x/t0001")):
        raise OSError(errno.ENOSPC, "no room")
    raise AssertionError


@pytest.mark.parametrize("fail", [_write_to_full_disk, _save_to_full_disk])
@pytest.mark.parametrize("module", COMMANDS)
def test_remedy_of_a_full_disk_has_no_flag_that_the_command_lacks(
    module: str,
    fail: Callable[[], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.cli.parse", fail)
        patch.setattr("sweeps.checks.find_recipe.read_recipe", fail)
        error, fix = _run_as_main(module, [], patch, capsys).err.splitlines()
    assert error.startswith("error: ") and "then repeat the command" in fix
    flags = set(re.findall("--[a-z-]+", fix))
    assert ("--name" in flags) == (module == "sweeps.trial")  # its folder is there already
    assert flags <= _flags(_run_as_main(module, ["--help"], monkeypatch, capsys).out).keys()


@pytest.mark.slow
def test_flags_that_documents_show_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, set[str]] = {}
    for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "sweeps/README.md"):
        text = (PROJECT / name).read_text("utf-8")
        for module, rest in re.findall(r"(sweeps\.[a-z]+) ([^`\n|#;]*)", text):
            if module in COMMANDS:
                shown.setdefault(module, set()).update(re.findall(r"(?<!\S)--[a-z-]+", rest))
    assert len(shown) > 6 and {"--resume", "--json", "--data"} <= shown["sweeps.run"]
    for module, flags in shown.items():
        known = _run_as_main(module, ["--help"], monkeypatch, capsys).out
        missing = {flag for flag in flags if not re.search(rf"{flag}(?![a-z-])", known)}
        assert not missing, module


def test_every_command_that_takes_json_is_told_to_programs() -> None:
    told = set(re.findall(r"^\| `(sweeps\.[a-z]+)", (PROJECT / "AGENTS.md").read_text(), re.M))
    files = [*(PROJECT / "sweeps").glob("*.py"), PROJECT / "sweeps" / "checks" / "run_args.py"]
    takes = {
        f"sweeps.{path.stem.removesuffix('_args')}"
        for path in files
        if re.search(r"^    json: .*JsonFlag", path.read_text(), re.M)
    }
    assert len(takes) > 5 and told == takes


def _run_as_main(
    module: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CaptureResult[str]:
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    return capsys.readouterr()


def test_users_newlines_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise SweepAborted("no file a\nfix: rm -rf\r\n b", "look\nthere")

    with pytest.raises(SystemExit):
        run_command(main)
    assert capsys.readouterr().err == "error: no file a fix: rm -rf b\nfix: look there\n"


def test_error_of_whatever_library_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise SweepAborted("http://me:s3cret@host refuses longs3cret", "ask host: longs3cret")

    monkeypatch.setenv("ITS_API_KEY", "longs3cret\n")
    with pytest.raises(SystemExit):
        run_command(main, argv=["--json"])
    shown, told = capsys.readouterr()
    assert told == "error: http://me:REDACTED@host refuses REDACTED\nfix: ask host: REDACTED\n"
    assert "s3cret" not in shown


def test_suggested_help_works() -> None:
    told = call("sweeps.run", "samsum", "--num-trials", "x").refusal()[1]
    words = re.sub(r"^python -m | lists every.*", "", told).split()
    assert call(*words).code == 0


def _flags(text: str) -> dict[str, str]:
    """Each flag of a help text with what is said of it."""
    plain = re.sub(r"[│╭╮╰╯─]", " ", text)
    parts = re.split(r"\n +(--[a-z][a-z-]*|-h, --help)(?= )", plain)
    return dict(zip(parts[1::2], map(_words, parts[2::2]), strict=True))


def _words(part: str) -> str:
    """A flag's text without its values' names, which stand before a wide gap or a line's end."""
    return " ".join(re.sub(r"^(?: [A-Z{\[][^\n]*?)?(?:  +|\n)", "", part, count=1).split())


def test_every_installed_script_is_the_command_of_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(SCRIPTS) >= 5
    for script, target in SCRIPTS.items():
        module, _, function = target.partition(":")
        monkeypatch.setattr(sys, "argv", [f"/somewhere/{script}", "--help"])
        with pytest.raises(SystemExit) as ended:
            getattr(import_module(module), function)()
        assert ended.value.code == 0
        command = script.replace("-", ".", 1)
        assert capsys.readouterr().out.startswith(f"usage: python -m {command} ")
