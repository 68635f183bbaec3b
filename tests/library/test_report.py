"""The table of classes: every figure by hand, and nothing in it that a spreadsheet would compute or a terminal obey."""

import csv

import numpy as np
import pytest

from gpucnn import answers, report
from gpucnn.metrics import confusion_matrix, precision_recall
from gpucnn.text import aligned, cell, columns, number_of

COUNTS = np.array([[8, 2, 0], [1, 4, 5], [0, 0, 0]])


def test_figures():
    a, b, never = report.of_classes(COUNTS, ["a", "b", "never"])
    assert (a.images, a.right, a.recall, a.precision, a.taken_for, a.times) == (10, 8, 0.8, 8 / 9, "b", 2)
    assert (b.images, b.right, b.recall, b.precision, b.taken_for, b.times) == (10, 4, 0.4, 4 / 6, "never", 5)
    assert b.f1 == pytest.approx(2 / (1 / 0.4 + 6 / 4)) and a.f1 == pytest.approx(16 / 19)
    assert (never.images, never.recall, never.precision, never.f1, never.taken_for) == (0, 0, 0, 0, "")


def test_figures_are_those_of_the_metrics():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((200, 7)), rng.integers(0, 6, 200)  # the last class never comes up
    rows = report.of_classes(confusion_matrix(labels, scores.argmax(axis=1), 7), list("abcdefg"))
    precision, recall = precision_recall(scores, labels)
    np.testing.assert_allclose([row.precision for row in rows], precision)
    np.testing.assert_allclose([row.recall for row in rows], recall)
    assert sum(row.images for row in rows) == 200


def test_as_text():
    text = report.lines(report.of_classes(COUNTS, ["a", "bad\x1b[31m", "c" * 60]))
    assert text[0] == "class                     images  recall  precision      F1  mistaken for"
    assert text[1] == "a                             10  80.0 %     88.9 %  84.2 %  bad\\x1b[31m (2)"
    assert all(line.isprintable() and line == line.rstrip() for line in text) and len(text) == 4


def test_columns_of_characters_of_double_width():
    assert [columns(text) for text in ("", "ab", "猫犬", "é", "e\u0301", "한글 a")] == [0, 2, 4, 1, 1, 6]
    assert aligned([("猫", "1", "x"), ("abc", "100", "")], right=(1,)) == ["猫     1  x", "abc  100"]


def test_tables_of_classes_with_characters_of_double_width():
    """Each line has its numbers in the same columns of the terminal."""
    names, scores = ["猫", "a dog", "한국어"], np.array([[0.7, 0.1, 0.2], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    predicted = answers.lines(["一.png", "two.png", "3.png"], scores, names, top=2)
    assert predicted[:2] == ["一.png   猫       70.0 %  한국어   20.0 %", "two.png  a dog   100.0 %  猫        0.0 %"]
    of_classes = report.lines(report.of_classes(COUNTS, names))
    for lines in (predicted, of_classes):
        assert len({columns(line[: line.index("%")]) for line in lines if "%" in line}) == 1


def test_as_a_table(tmp_path):
    names = ["=cmd|' /C calc'!A0", "a,b", "-2"]
    report.write(tmp_path / "report.csv", report.of_classes(COUNTS, names))
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert tuple(head) == report.HEADER
    assert rows[0] == ["'=cmd|' /C calc'!A0", "10", "8", "0.800000", "0.888889", "0.842105", "a,b", "2"]
    assert rows[1][0] == "a,b" and rows[1][6] == "'-2" and rows[2] == ["'-2", "0", "0", *["0.000000"] * 3, "", "0"]


@pytest.mark.parametrize(
    ("words", "shown"), [("=1", "'=1"), ("+1", "'+1"), ("@a", "'@a"), (" =1", "' =1"), ("a=1", "a=1"), ("\t=1", "\\t=1"), ("", "")]
)
def test_cells(words, shown):
    assert cell(words) == shown


@pytest.mark.parametrize(("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1234, "1,234 images")])
def test_a_number_of_things(number, words):
    assert number_of(number, "image") == words
