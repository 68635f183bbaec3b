"""The page in a real browser, headless: no error in its console, sorting, text under the mouse, narrow screens, both colour schemes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium: apt install chromium", allow_module_level=True)
sync_api: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()


class Opened:
    """A page, with all that it said to the console, and all that it asked for."""

    def __init__(self, browser: Any, profile: Profile, path: Path, **options: Any) -> None:
        page.write(profile, path)
        self.page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def column(self, title: str) -> list[str]:
        place = self.page.locator("thead th").all_inner_texts().index(title) + 1
        return self.page.locator(f"tbody tr[data-row] td:nth-child({place})").all_inner_texts()

    def quiet(self) -> bool:
        return self.said == [] and len(self.asked) == 1


def test_nothing_is_wrong_and_nothing_is_asked_for(browser: Any, recorded: Profile, bounds: Profile, tmp_path: Path) -> None:
    for profile in (recorded, bounds):
        opened = Opened(browser, profile, tmp_path / "page.html")
        assert opened.quiet(), (opened.said, opened.asked)
        assert opened.page.locator("svg").count() == 2
        assert opened.page.title() == f"{profile.model}, batch {profile.batch}, on A recorded chip"


def test_a_click_sorts_and_a_second_one_turns_it_round(browser: Any, recorded: Profile, tmp_path: Path) -> None:
    opened = Opened(browser, recorded, tmp_path / "page.html")
    assert opened.column("time") == ["200 µs", "40.0 µs", "30.0 µs", "3.00 µs", "160 µs", "40.0 µs"]
    opened.page.get_by_role("button", name="time").click()
    assert opened.column("time") == ["200 µs", "160 µs", "40.0 µs", "40.0 µs", "30.0 µs", "3.00 µs"]
    opened.page.locator("th[aria-sort=descending]").get_by_role("button").click()
    assert opened.column("time") == ["3.00 µs", "30.0 µs", "40.0 µs", "40.0 µs", "160 µs", "200 µs"]
    opened.page.get_by_role("button", name="layer").click()
    assert opened.column("layer") == sorted(row.layer for row in recorded.rows)
    opened.page.get_by_role("button", name="× torch").click()
    assert opened.column("× torch") == ["1.25×", "", "", "", "", ""], "what has no number comes last, however it is sorted"
    opened.page.get_by_role("button", name="× torch").click()
    assert opened.column("× torch") == ["1.25×", "", "", "", "", ""]
    assert opened.quiet()


def test_the_mouse_brings_words_and_lights_the_row(browser: Any, recorded: Profile, tmp_path: Path) -> None:
    opened = Opened(browser, recorded, tmp_path / "page.html")
    tip = opened.page.locator("#tip")
    assert not tip.is_visible()
    opened.page.locator("circle[data-row='1']").hover(force=True)
    assert tip.is_visible() and "maxpool2d_1, forward" in tip.inner_text() and "memory bound" in tip.inner_text()
    assert "lit" in (opened.page.locator("#row-1").get_attribute("class") or "")
    opened.page.mouse.move(1, 1)
    assert not tip.is_visible()
    opened.page.locator("rect[data-row='4']").focus()
    assert "conv2d_weight_grad" in tip.inner_text()
    assert opened.quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_the_drawings_and_not_the_page(browser: Any, bounds: Profile, tmp_path: Path, scheme: str) -> None:
    opened = Opened(browser, bounds, tmp_path / "page.html", viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    brightness = opened.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (brightness > 128) == (scheme == "light")
    assert opened.quiet()


def test_text_stays_text(browser: Any, recorded: Profile, nasty: str, tmp_path: Path) -> None:
    rows = [dataclasses.replace(recorded.rows[0], layer=nasty, kernel=nasty, shape=nasty)]
    opened = Opened(browser, dataclasses.replace(recorded, model=nasty, rows=rows, notes=[nasty]), tmp_path / "page.html")
    assert opened.page.locator("h1").inner_text() == nasty
    opened.page.locator("circle").first.hover(force=True)
    assert nasty in opened.page.locator("#tip").inner_text()
    assert opened.page.locator("script").count() == 1
    assert opened.quiet()
