"""The page as text: one file, nothing from outside, all text escaped. test_browser.py opens it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpucnn.profiling.records import Profile, Step
from gpucnn.profiling.show import page, svg
from gpucnn.profiling.what.operations import KINDS, OTHER

VOID = {"meta", "link", "line", "circle", "rect", "polyline", "br"}


class Checker(HTMLParser):
    """Counts what is in a page, and refuses one whose tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, (tag, self.open)


def parsed(profile: Profile) -> Checker:
    checker = Checker()
    checker.feed(page.html(profile))
    checker.close()
    assert not checker.open
    return checker


def test_every_kind_of_operation_has_a_colour() -> None:
    style = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    for kind in (*KINDS, OTHER):
        assert style.count(f"--{kind}: #") == 2, "one for paper, one for the dark"
        assert f"svg .{kind} {{" in style and f".hollow.{kind} {{" in style and (f".key i.{kind} {{" in style or kind == OTHER), kind


def test_the_page_stands_alone(recorded: Profile, bounds: Profile) -> None:
    for profile in (recorded, bounds):
        checker = parsed(profile)
        assert checker.links == ["data:,"]
        text = page.html(profile)
        assert not re.search(r"https?://|url\(|@import|srcdoc|<iframe|<img", text)
        assert "default-src &#x27;none&#x27;" in text
        assert checker.counts["svg"] == 2 and checker.counts["tr"] >= len(profile.rows) + 1


def test_dots_bars_and_rows_are_those_of_the_profile(recorded: Profile) -> None:
    text = page.html(recorded)
    for index in range(len(recorded.rows)):
        assert text.count(f'data-row="{index}"') == 3  # a dot, a bar, a row
    assert 'class="roof"' in text and "10.0 TFLOP/s" in text and "1.00 TB/s" in text
    assert "ncu --kernel-name" in text


def test_rows_without_arithmetic_are_no_dots(bounds: Profile) -> None:
    assert svg.roofline_svg(bounds).count("<circle") == 1
    assert "Left out: 1 without floating-point work." in page.html(bounds)


def test_bounds_say_that_they_are(bounds: Profile, recorded: Profile) -> None:
    assert "Nothing was run, and nothing measured" in page.html(bounds)
    assert "nothing measured" not in page.html(recorded)


def test_kernels_by_themselves_have_no_step(kernels: Profile) -> None:
    assert parsed(kernels).counts["svg"] == 1
    text = page.html(kernels)
    assert "Timeline" not in text and "of the step" not in text and "sample" in text and "layer</button>" not in text


def test_all_text_is_escaped(recorded: Profile, nasty: str) -> None:
    rows = [dataclasses.replace(row, layer=nasty, phase=nasty, op=nasty, kernel=nasty, shape=nasty) for row in recorded.rows]
    step = dataclasses.replace(recorded.step, memory={nasty: 5})
    ceilings = dataclasses.replace(recorded.ceilings, source=nasty)
    vicious = Profile("gpu", nasty, 1, {"chip": nasty, nasty: nasty}, ceilings, rows, step, [nasty], {nasty: nasty})
    checker = parsed(vicious)
    assert checker.counts["script"] == 1 and checker.counts["style"] == 1
    assert "<script>alert" not in page.html(vicious)


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_anything_is_a_page_too(recorded: Profile, rows: int) -> None:
    empty = dataclasses.replace(recorded, rows=recorded.rows[:rows], step=Step(kernels=0.0), notes=[], commands={})
    parsed(empty)


def test_extremes_are_drawn_inside(recorded: Profile) -> None:
    """Dots far below the roof, or with no time at all, stay on the drawing."""
    first = recorded.rows[0]
    rows = [dataclasses.replace(first, flops=1, bytes=10**12), dataclasses.replace(first, flops=10**15, bytes=1), first]
    drawing = svg.roofline_svg(dataclasses.replace(recorded, rows=rows))
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', drawing):
        assert 0 <= float(x) <= svg.WIDTH and 0 <= float(y) <= 400


def test_the_file_is_written_whole(recorded: Profile, tmp_path: Path) -> None:
    page.write(recorded, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html(recorded)
    assert len(list(tmp_path.iterdir())) == 1
