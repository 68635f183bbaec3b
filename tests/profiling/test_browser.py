"""The page in a real browser, headless: no error in its console, sorting, text under the mouse, narrow screens, both colour schemes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import page
from gpucnn.text import plain


class Opened:
    """A page, with all that it said to the console, and all that it asked for."""

    def __init__(self, browser: Any, profile: Profile, path: Path, **options: Any) -> None:
        page.write(profile, path)
        self.page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
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
    assert tip.is_visible() and "maxpool2d_1, forward" in tip.inner_text() and "memory-bound" in tip.inner_text()
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


def test_no_name_is_anything_but_text(browser: Any, recorded: Profile, all_hostile: list[str], tmp_path: Path) -> None:
    """A kernel for each name; all of them are looked at with the mouse and the keyboard."""
    usual = recorded.rows[0]
    rows = [dataclasses.replace(usual, layer=name, kernel=name, shape=name, op=name, phase=name) for name in all_hostile]
    profile = dataclasses.replace(recorded, rows=rows, notes=all_hostile, device={"chip": all_hostile[0], **dict.fromkeys(all_hostile, "")})
    opened = Opened(browser, recorded, tmp_path / "page.html")
    for name in all_hostile:
        page.write(dataclasses.replace(profile, model=name, only=name, rows=rows[:1]), tmp_path / "page.html")
        opened.page.reload()
        assert opened.page.locator("h1").text_content() == plain(name)
    assert opened.said == []
    opened.page.close()
    opened = Opened(browser, profile, tmp_path / "page.html")
    for place, name in enumerate(all_hostile):
        mark = opened.page.locator(f"rect[data-row='{place}']")
        mark.focus()
        lines = (opened.page.locator("#tip").text_content() or "").split("\n")
        assert lines[:3] == [plain(name), f"{plain(name)}, {plain(name)}", plain(name)]
    titles = opened.page.locator("thead th").all_inner_texts()
    cells = opened.page.locator(f"tbody tr[data-row] td:nth-child({titles.index('layer') + 1}) span").all_text_contents()
    assert cells == [plain(name) for name in all_hostile]
    for title in ("layer", "time", "shape"):
        opened.page.get_by_role("button", name=title, exact=True).evaluate("button => button.click()")  # it may be far to the right
    for tag, count in {"script": 1, "svg": 2, "img": 0, "b": 0, "[onload]": 0, "[onerror]": 0, "[autofocus]": 0}.items():
        assert opened.page.locator(tag).count() == count, tag
    assert opened.quiet(), opened.said
