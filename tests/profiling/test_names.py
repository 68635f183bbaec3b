"""Names of others (of models, layers, files and what metadata hold) in the profiler's page and trace: text, and nothing but text."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gpucnn.profiling import records
from gpucnn.profiling.records import Profile
from gpucnn.profiling.show import page, report, trace
from gpucnn.text import plain

KEPT = {"kind", "wall"}  # words of ours, which `records.checked` compares with those that there are
MOVES = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of what is shown as nothing, or moves what is beside it


class Structure(HTMLParser):
    """All that is not text: tags, with their attributes' names, and the values of those that name no text of a profile."""

    TEXTS = frozenset({"data-tip", "data-key"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[Any] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [(name, None if name in self.TEXTS else value) for name, value in attrs]))
        self.texts += [value or "" for name, value in attrs if name in self.TEXTS]

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.found.append("a comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append(decl)

    def unknown_decl(self, data: str) -> None:
        self.found.append("a declaration")

    def handle_pi(self, data: str) -> None:
        self.found.append("an instruction")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def named(value: Any, name: str) -> Any:
    """A profile, or a part of one, with `name` in place of every text in it, also of keys."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{key: named(item, name) for key, item in fields.items() if key not in KEPT})
    if isinstance(value, list):
        return [named(item, name) for item in value]
    if isinstance(value, dict):
        return {key if key == "chip" else f"{name}{number}": named(item, name) for number, (key, item) in enumerate(value.items())}
    return name if isinstance(value, str) else value


@pytest.fixture(params=["measured", "bounds"])
def harmless(request: pytest.FixtureRequest, recorded: Profile, bounds: Profile) -> Profile:
    """With every text in it a word."""
    return named(recorded if request.param == "measured" else bounds, "word")


def test_a_name_is_text_on_the_page(harmless: Profile, hostile: str, tmp_path: Path) -> None:
    profile = named(harmless, hostile)
    page.write(profile, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_bytes().decode()  # in UTF-8, whatever was in the name
    parsed, usual = Structure(text), Structure(page.html(harmless))
    assert parsed.found == usual.found
    shown = [each for each in parsed.texts if plain(hostile) in each]
    assert len(shown) >= sum("word" in each for each in usual.texts) > 20
    for each in shown:
        assert not [character for character in each if unicodedata.category(character) in MOVES and character != "\n"], each
    # A line break is one that we made: between the lines of what the mouse brings.
    assert sum(each.count("\n") for each in parsed.texts) == sum(each.count("\n") for each in usual.texts)


def test_a_name_is_a_word_in_the_trace(harmless: Profile, hostile: str, tmp_path: Path) -> None:
    contents = []
    for profile in (named(harmless, hostile), harmless):
        trace.write(profile, tmp_path / "trace.json")
        contents.append(json.loads((tmp_path / "trace.json").read_bytes().decode()))
    written = json.dumps(contents[0], ensure_ascii=False)
    assert not [character for character in json.loads(json.dumps(written)) if unicodedata.category(character) in MOVES]
    assert plain(hostile) in contents[0]["otherData"]["model"]
    assert skeleton(contents[0]) == skeleton(contents[1])


def skeleton(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: skeleton(item) for key, item in value.items()}
    return [skeleton(item) for item in value] if isinstance(value, list) else type(value).__name__


def test_a_profile_with_such_names_can_be_written_read_and_reported(harmless: Profile, hostile: str, tmp_path: Path) -> None:
    profile = named(harmless, hostile)
    records.write(profile, tmp_path / "profile.json")
    assert records.read(tmp_path / "profile.json") == profile
    assert report.lines(profile)
