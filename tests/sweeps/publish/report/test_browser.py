"""The page as readers have it: in a real Chromium, by mouse, by keyboard and by its tree for screen
readers."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps.publish.load_run import load_run
from sweeps.publish.report import page as page_module
from sweeps.report import main
from tests.conftest import CHROMIUM
from tests.sweeps.publish.report.many_trials import HOSTILE, LABELS, write_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NUM_TRIALS = 24
LIMIT_MS = 60_000.0
"""A machine may be slow; what is waited for comes."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In whose every text stands what would hurt a page that does not escape."""
    folder = tmp_path_factory.mktemp("runs") / "hostile"
    paths = write_run(folder, NUM_TRIALS, labels=(*LABELS[:2], HOSTILE), text=HOSTILE)
    main([str(paths.folder)])
    return paths.report


class Opened:
    """A page with all that it told the console and asked the world for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", timeout=LIMIT_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_quiet_inert_and_accessible(browser: Any, page_file: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = Opened(browser, page_file, color_scheme=scheme)
    page = opened.page
    assert page.locator(".plot svg").count() == page.locator(".plot").count() >= 8
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    for dot in ("#slice0 svg .mark-symbol path >> nth=3", "#timeline svg .mark-rect path >> nth=5"):
        page.locator(dot).hover(force=True)
        page.wait_for_selector("#vg-tooltip-element.visible", timeout=LIMIT_MS)
    assert page.evaluate("[typeof hurt, document.images.length]") == ["undefined", 0]
    assert opened.said == [] and opened.asked == [page_file.as_uri()]
    found = Axe().run(page).response["violations"]
    serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], found


def test_comparison_is_quiet_and_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        write_run(folder, NUM_TRIALS, labels=(*LABELS[:2], HOSTILE), text=HOSTILE)
    output = tmp_path / "comparison.html"
    main([*map(str, folders), "--output", str(output)])
    opened = Opened(browser, output, viewport={"width": 390, "height": 844})
    assert opened.page.locator(".plot svg").count() == 2 and opened.said == []
    assert opened.page.evaluate("[typeof hurt, document.documentElement.scrollWidth]") == [
        "undefined",
        390,
    ]


@pytest.mark.parametrize("num_trials", [1, 12])
def test_page_of_an_unfinished_sweep_is_quiet(
    browser: Any, tmp_path: Path, num_trials: int
) -> None:
    paths = write_run(tmp_path / "half", num_trials, is_ended=False)
    main([str(paths.folder)])
    opened = Opened(browser, paths.report)
    assert opened.said == [] and opened.page.locator("#curves svg").count() == 1


def test_page_of_a_running_sweep_loads_itself_again_until_it_is_paused(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "REFRESH_S", 3)
    paths = write_run(tmp_path / "live", 4, is_ended=False)
    paths.report.write_text(page_module.render([replace(load_run(paths.folder), is_running=True)]))
    opened = Opened(browser, paths.report)
    with opened.page.expect_event("load", timeout=LIMIT_MS):
        pass
    pause = opened.page.get_by_role("button", name="Pause")
    while pause.get_attribute("aria-pressed") != "true":  # a click before the script runs is lost
        pause.click()
        opened.page.wait_for_timeout(500)
    num_asked = len(opened.asked)
    opened.page.wait_for_timeout(4000)
    assert len(opened.asked) == num_asked >= 2 and opened.said == []


def test_old_page_of_a_sweep_that_died_rests(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "REFRESH_S", 1)
    monkeypatch.setattr(page_module, "STALE_S", -1)
    paths = write_run(tmp_path / "dead", 4, is_ended=False)
    paths.report.write_text(page_module.render([replace(load_run(paths.folder), is_running=True)]))
    opened = Opened(browser, paths.report)
    opened.page.wait_for_timeout(2500)
    assert len(opened.asked) == 1 and opened.said == []
    assert "no longer loads itself" in opened.page.locator(".live").inner_text()


def test_page_fits_a_phone(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, viewport={"width": 390, "height": 844}, has_touch=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    sizes = opened.page.locator("main p, main td, main li").evaluate_all(
        "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 14


def test_labels_of_an_axis_keep_apart_on_a_narrow_page(browser: Any, page_file: Path) -> None:
    page = Opened(browser, page_file, viewport={"width": 375, "height": 800}).page
    labels = page.locator("#importance .role-axis-label text").evaluate_all(
        """(texts) => texts.filter((text) => getComputedStyle(text).opacity > 0)
            .map((text) => text.getBoundingClientRect())
            .map((box) => [box.top, box.left, box.right])"""
    )
    rows = [[box for box in sorted(labels) if box[0] == top] for top in {box[0] for box in labels}]
    gaps = [after[1] - before[2] for row in rows for before, after in pairwise(row)]
    assert gaps and min(gaps) > 8


def test_brush_and_lists_select_lines_and_rows_of_the_table(browser: Any, page_file: Path) -> None:
    page = Opened(browser, page_file).page
    shown = page.locator("#trials tbody tr:not([hidden])")
    assert shown.count() == NUM_TRIALS
    page.locator("#parallel").evaluate("one => one.scrollIntoView({block: 'center'})")
    grip = page.locator("#parallel svg .grip5 path").bounding_box()  # the steps
    assert grip is not None
    middle = grip["x"] + grip["width"] / 2
    page.mouse.move(middle, grip["y"] + 1)
    page.mouse.down()
    page.mouse.move(middle, grip["y"] + grip["height"] * 0.2, steps=4)
    page.mouse.up()
    page.wait_for_selector("#matching:not(:empty)", timeout=LIMIT_MS)
    assert set(shown.locator("td:nth-child(3)").all_text_contents()) == {"90"}
    by_mouse = shown.count()
    page.get_by_text("Select trials by lists").click()
    page.locator("#axes button[type=reset]").click()
    page.wait_for_selector("#matching:empty", state="attached", timeout=LIMIT_MS)
    assert shown.count() == NUM_TRIALS
    page.locator("#axes fieldset").nth(5).get_by_label("from").select_option(label="90")
    assert shown.count() == by_mouse == 6


def test_answers_are_filtered_and_trials_sorted_by_keyboard(browser: Any, page_file: Path) -> None:
    page = Opened(browser, page_file).page
    answers = page.locator("article.answer:not([hidden])")
    assert answers.count() == 20
    name = (answers.nth(7).locator("h3").text_content() or "").split("<")[0]
    page.get_by_label("Show answers with").fill(f"{name}<")
    assert answers.count() == 1
    head = page.locator("#trials thead th").nth(3)
    head.get_by_role("button").press("Enter")
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    scores = page.locator("#trials tbody tr td:nth-child(4)").all_text_contents()
    values = [float(score) for score in scores if score]
    assert values == sorted(values, reverse=True) and scores[-1] == ""
