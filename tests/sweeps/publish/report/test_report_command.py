"""python -m sweeps.report: the page of a run, from its folder alone."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sweeps.publish.load_run import load_run
from sweeps.publish.report.listings import list_commands
from sweeps.publish.report.page import render
from sweeps.publish.report.result import describe_sweep
from sweeps.report import main
from tests.sweeps.commands import read_by_shell
from tests.sweeps.publish.report.many_trials import HOSTILE, LABELS, write_run
from trainables.errors import SweepAborted
from trainables.files import encode_lines
from trainables.tiny import HYBRID_DIR, SAMSUM_DIR

MAX_BYTES = 5_000_000


class _Page(HTMLParser):
    """Tags, attributes and text of a page; what is a script's own is no text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_of_many_trials_is_small_loads_nothing_and_says_what_came_out(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "many")
    shutil.move(tmp_path / "many", tmp_path / "moved")
    main([str(tmp_path / "moved")])
    html = (tmp_path / "moved" / "report.html").read_text(encoding="utf-8")
    assert len(html.encode()) < MAX_BYTES and not paths.folder.exists()
    page = _Page(html)
    assert not {name for name, _ in page.attributes} & {"src", "srcset", "action", "onclick"}
    links = {value for name, value in page.attributes if name == "href"}
    assert all(link and link.startswith("#") for link in links)
    facts = load_run(tmp_path / "moved")
    assert facts.outcome is not None and facts.finals is not None and facts.score_interval
    for told in (
        facts.outcome.winner.trial_id,
        "95% interval",
        "Gain over the untuned base",
        "the input's first sentence",
        "Warning:",
        "PED-ANOVA",
        "non-finite loss at step 3",
        "3left out",
        "prompts cut to 512 tokens",
        "slots on NVIDIA H200",
        "python -m sweeps.verify",
        "python -m sweeps.export",
        "python -m sweeps.demo",
        "python -m sweeps.predict",
    ):
        assert told in page.text, told
    assert page.tags.count("article") == 20
    assert str(Path.home()) not in html


@pytest.mark.parametrize("name", ["my  runs", "it's $HOME", "a\nb"])
def test_commands_of_the_page_can_be_pasted_and_do_not_name_the_home_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = write_run(tmp_path / name / "mine", is_ended=False)
    commands = dict(list_commands(load_run(paths.folder)))
    assert not any(str(tmp_path) in command for command in commands.values())
    assert read_by_shell(commands["Make this page again"])[-1] == str(paths.folder)
    resume = read_by_shell(commands["Resume the sweep"])
    assert resume[resume.index("--runs-dir") + 1] == str(tmp_path / name)


def test_what_data_labels_logs_and_models_say_is_text_on_the_page(tmp_path: Path) -> None:
    harmless = write_run(tmp_path / "plain", labels=(*LABELS[:2], "x"))
    paths = write_run(tmp_path / "hostile", labels=(*LABELS[:2], HOSTILE), text=HOSTILE)
    main([str(harmless.folder)])
    main([str(paths.folder)])
    plain, page = (_Page(run.report.read_text(encoding="utf-8")) for run in (harmless, paths))
    assert page.tags == plain.tags  # not one element more
    assert page.text.count("window.hurt=1") > 100
    raw = paths.report.read_text(encoding="utf-8")
    assert raw.count("<script") == 3 and "\u2028</" not in raw and "<!--" not in raw


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "new", is_ended=False)
    paths.events.unlink()
    main([str(paths.folder)])
    page = _Page(paths.report.read_text(encoding="utf-8"))
    assert "No trial has started yet" in page.text and "not finished" in page.text
    assert re.search(r"python -m sweeps.run samsum .*--resume", page.text)


def test_unfinished_sweep_shows_the_best_so_far_without_a_test(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "half", num_trials=20, is_ended=False)
    output = tmp_path / "page.html"
    main([str(paths.folder), "--output", str(output)])
    page = _Page(output.read_text(encoding="utf-8"))
    assert "Best so far" in page.text and "on test" not in page.text
    assert not paths.report.exists()


def test_command_that_repeats_the_sweep_can_be_pasted_and_tells_what_it_leaves_out(
    tmp_path: Path,
) -> None:
    paths = write_run(tmp_path / "live", num_trials=12)
    run = load_run(paths.folder)
    words = read_by_shell(dict(list_commands(run))["Repeat the sweep"])
    assert "--name" not in words and "--num-trials" in words
    assert "by hand" not in render([run])
    asked = replace(run, trials=(*run.trials[:-1], replace(run.trials[-1], is_asked=True)))
    page = render([asked])
    assert "Repeat the sweep, but for trials added by hand (1)" in page
    cell = '<tr data-trial="t0011"><th scope="row" data-key="t0011">t0011 (by hand)</th>'
    assert cell in page and page.count("(by hand)") == 1


def test_trials_of_a_sweep_that_was_killed_do_not_run(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "killed", num_trials=20, is_ended=False)
    events = [json.loads(line) for line in paths.events.read_text().splitlines()]
    lost = [event for event in events if event["kind"] == "trial_ended"][-2:]
    paths.events.write_bytes(encode_lines(event for event in events if event not in lost))
    run = load_run(paths.folder)
    shown = {
        word: render([replace(run, is_running=is_running)])
        for word, is_running in (("unfinished", False), ("running", True))
    }
    for word, page in shown.items():
        (other,) = shown.keys() - {word}
        assert f", 2 {word}" in page and f", 2 {other}" not in page
        assert page.count(f'<td data-key="{word}">{word}</td>') == 2
        assert f'"status": "{word}"' in page and f'"status": "{other}"' not in page
    assert dict(run.to_json()["trials"])["unfinished"] == 2  # type: ignore[call-overload]


def test_finals_and_test_from_before_a_sweep_went_on_no_longer_count(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "longer", num_trials=12)
    paths.best.mkdir()
    of_ended = ("of GPU time saved", "GPU-hours in", "Where the GPUs&#39; time went")
    assert all(told in render([load_run(paths.folder)]) for told in of_ended)
    assert load_run(paths.folder).finals and load_run(paths.folder).doubts
    events = paths.events.read_text().splitlines()
    begun = json.loads(next(line for line in events if '"trial_started"' in line))
    more = {"time": begun["time"], "kind": "sweep_resumed", "num_trials": 20}
    with paths.events.open("a") as log:
        log.write(f"{json.dumps(more)}\n")
    resumed = load_run(paths.folder)
    assert resumed.outcome is not None and resumed.adapter == paths.best
    assert not any(told in render([resumed]) for told in of_ended)
    with paths.events.open("a") as log:
        log.write(f"{json.dumps(begun | {'trial_id': 't0012', 'number': 12})}\n")
    run = load_run(paths.folder)
    assert run.outcome is None and run.finals is None and run.adapter is None
    assert (run.adapter_id, run.scores, run.doubts, run.lead_intervals) == (None, {}, (), {})
    assert run.config.num_trials == 20
    page = render([run])
    assert "13 of 20 trials" in page and "Best so far" in page


def test_secrets_in_reasons_are_not_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cr3tvalue")
    paths = write_run(tmp_path / "secret", num_trials=12)
    reason = "no access to https://me:s3cr3tvalue@example.org"
    events = [json.loads(line) for line in paths.events.read_text().splitlines()]
    for event in events:
        if event["kind"] == "trial_ended":
            event["reason"] = reason
    paths.events.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    told = json.loads(paths.finals_json.read_text())
    paths.finals_json.write_text(json.dumps(told | {"notes": [f"f0001s1 is missing: {reason}"]}))
    page = render([load_run(paths.folder)])
    assert "s3cr3tvalue" not in page and page.count("https://me:REDACTED@example.org") > 2


def test_several_runs_are_compared_and_what_does_not_compare_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, more in (("one", {}), ("two", {"seed": 1}), ("three", {"labels": LABELS})):
        write_run(tmp_path / name, num_trials=12, **more)
    other = tmp_path / "three" / "sweep.json"
    other.write_text(other.read_text().replace('"fingerprint": "f1"', '"fingerprint": "f2"'))
    main(["one", "two", "three"])
    page = _Page((tmp_path / "comparison.html").read_text(encoding="utf-8"))
    assert "the metric or its settings of three differ from those of one" in page.text
    assert "of two differ" not in page.text
    for told in ("Comparison of 3 sweeps", "rougeLsum on test", "Best accuracy by time"):
        assert told in page.text
    facts = [load_run(tmp_path / name) for name in ("one", "two", "three")]
    assert all(run.outcome and run.outcome.winner.trial_id in page.text for run in facts)
    assert len({run.outcome.winner.trial_id for run in facts if run.outcome}) > 1


def test_no_run_is_told_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="there is no sweep in"):
        main([str(tmp_path)])
    with pytest.raises(SweepAborted, match="no run is named"):
        main([])


def test_page_says_that_bundled_model_and_rows_are_bundled(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", num_trials=4).folder)
    config, record = replace(run.config, model=str(HYBRID_DIR)), {"dataset": str(SAMSUM_DIR)}
    lines = describe_sweep(replace(run, config=config, record={**run.record, **record}))
    assert lines[0].endswith(" on samsum-tiny (bundled synthetic dialogues)")
    assert lines[1].startswith("Base tiny-hybrid (a bundled tiny base) in NF4")


def test_only_an_earlier_page_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = (write_run(tmp_path / name, num_trials=12) for name in ("one", "two"))
    kept = {one.events, tmp_path / "README.md", tmp_path / "comparison.html", tmp_path / "own.html"}
    for path in kept - {one.events}:
        path.write_text("<!doctype html>\n<title>mine</title>\n")
    (tmp_path / "link.html").symlink_to("nowhere")
    (tmp_path / "empty").touch()
    texts = {path: path.read_text() for path in kept}
    for argv in (
        *(["one", "--output", str(path)] for path in (*kept, "link.html", "empty", "two")),
        ["one", "two"],
    ):
        with pytest.raises(SweepAborted, match="exists, and is no page of a report") as refused:
            main(argv)
        assert "another file" in refused.value.fix
    assert {path: path.read_text() for path in kept} == texts
    for argv in (["one"], ["one", "two", "--output", "both.html"]):
        for _ in range(2):
            page = main(argv).facts["page"]
    main(["two", "--output", str(page)])
    assert "two: sweep report" in Path(str(page)).read_text(encoding="utf-8")
    assert "one: sweep report" in one.report.read_text(encoding="utf-8") and two.folder.is_dir()


def test_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one").folder
    (tmp_path / "link").symlink_to(folder)
    for again in (folder, f"{folder}/../one", tmp_path / "link"):
        with pytest.raises(SweepAborted, match="one is named twice") as refused:
            main([str(folder), str(again), "--output", str(tmp_path / "page.html")])
        assert "once" in refused.value.fix
    assert not (tmp_path / "page.html").exists()
