"""Drawing with the mouse and the keyboard, images from outside, and what becomes of both on their way to the network."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import viewing
from gpucnn.errors import DataError, MissingExtraError
from gpucnn.viewing import pictures

from .conftest import Opened


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse, from one angle to another in degrees, clockwise on a screen from three o'clock."""
    steps = [math.radians(start + (end - start) * i / 16) for i in range(17)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in steps]


# Digits as people write them: strokes, each a list of points (across, down) of a board of 1 × 1.
STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [arc(0.5, 0.5, 0.2, 0.3, -90, 270)],
    1: [[(0.55, 0.18), (0.5, 0.5), (0.46, 0.82)]],
    2: [[*arc(0.5, 0.35, 0.19, 0.17, -170, 30), (0.45, 0.62), (0.3, 0.8), (0.45, 0.78), (0.72, 0.8)]],
    3: [[*arc(0.47, 0.34, 0.17, 0.15, -150, 90), *arc(0.47, 0.65, 0.2, 0.16, -90, 150)]],
    4: [[(0.38, 0.2), (0.32, 0.5), (0.62, 0.5)], [(0.64, 0.2), (0.6, 0.5), (0.56, 0.82)]],
    5: [[(0.68, 0.2), (0.42, 0.2), (0.38, 0.46), *arc(0.47, 0.62, 0.19, 0.18, -100, 140)]],
    6: [[(0.6, 0.18), (0.44, 0.36), (0.36, 0.58), *arc(0.49, 0.65, 0.13, 0.15, 180, -180)]],
    7: [[(0.3, 0.22), (0.68, 0.22), (0.56, 0.5), (0.46, 0.82)]],
    8: [[*arc(0.5, 0.34, 0.14, 0.14, 90, -270), *arc(0.5, 0.65, 0.17, 0.17, -90, 270)]],
    9: [[*arc(0.5, 0.36, 0.15, 0.15, 0, -360), (0.64, 0.4), (0.62, 0.6), (0.56, 0.82)]],
}


def draw(page: Any, digit: int, moves: int = 4) -> None:
    """Draws a digit on the board with the mouse, which says where it is so many times from point to point."""
    page.click("#clear")
    box = page.locator("#pad").bounding_box()
    for stroke in STROKES[digit]:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 if i == 0 else moves)
            if i == 0:
                page.mouse.down()
        page.mouse.up()


def seen(page: Any) -> np.ndarray[Any, Any]:
    """The bytes that the network was given."""
    return np.array(page.evaluate("() => [...gpucnn.state.bytes]"), np.uint8)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def digits() -> tuple[gc.Sequential, Any]:
    try:
        data = gc.load_dataset("digits")
    except MissingExtraError as error:
        pytest.skip(str(error))
    model = gc.Sequential(gc.Conv2D(16, 3, padding="same", activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(10))
    model.build((1, 8, 8), seed=0, device="cpu").compile(gc.Adam(5e-3))
    model.fit(data.train_images, data.train_labels, batch_size=64, epochs=8, verbose=False)
    model.metadata = {"network": "small", "dataset": "digits", "dataset_name": "digits", "class_names": list("0123456789")}
    return model, data


@pytest.fixture(scope="module")
def board(browser: Any, digits: tuple[gc.Sequential, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One page for all tests of this file that change nothing for those that follow."""
    model, data = digits
    path = tmp_path_factory.mktemp("board") / "page.html"
    viewing.write(model, path, pictures.of_dataset(model, data))
    opened = Opened(browser, path)
    yield opened
    opened.page.close()


def upload(board: Opened, name: str, content: bytes, kind: str = "") -> None:
    board.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


def complaint(board: Opened) -> str:
    board.page.wait_for_selector("#input-error", state="visible")
    return board.text("#input-error")


def test_images_that_came_along_are_taken_pixel_by_pixel(board: Opened, digits: tuple[gc.Sequential, Any]) -> None:
    model, data = digits
    shown = pictures.of_dataset(model, data)
    right = model.predict(shown.images)
    for number in range(10):
        board.page.locator(".picture").nth(number).click()
        board.answered()
        assert np.array_equal(seen(board.page), shown.images[number].reshape(-1))
        np.testing.assert_allclose(board.outputs()[-1], right[number], atol=1e-6)
        assert board.page.locator(".picture[aria-pressed=true]").inner_text() == str(number)
    assert board.text("#answer").split()[0] == str(right[9].argmax())
    assert board.quiet(), board.said


def test_an_image_of_the_networks_size_is_taken_as_it_is(board: Opened, digits: tuple[gc.Sequential, Any]) -> None:
    model, data = digits
    for index in (3, 17, 42):
        upload(board, "digit.png", png(data.test_images[index, 0]), "image/png")
        board.page.wait_for_function("bytes => String(gpucnn.state.bytes) === bytes", arg=",".join(map(str, data.test_images[index].flat)))
        board.answered()
        np.testing.assert_allclose(board.outputs()[-1], model.predict(data.test_images[index : index + 1])[0], atol=1e-6)


def test_strokes_of_the_mouse_become_a_digit_of_the_sets_size(board: Opened) -> None:
    for digit in (0, 1, 7):
        draw(board.page, digit)
        board.answered()
        image = seen(board.page).reshape(8, 8)
        assert image[0].any() and image[-1].any(), "it fills the eight rows"
        assert board.text("#answer").split()[0] == str(digit)
    board.page.click("#clear")
    board.answered()
    assert not seen(board.page).any()
    board.page.click("#undo")
    board.answered()
    assert np.array_equal(seen(board.page).reshape(8, 8), image)
    board.page.click("#erase")
    box = board.page.locator("#pad").bounding_box()
    board.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    board.page.mouse.down()
    board.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5, steps=3)
    board.page.mouse.up()
    board.answered()
    assert not np.array_equal(seen(board.page).reshape(8, 8), image)
    board.page.click("#erase")
    assert board.quiet(), board.said


def test_the_keyboard_draws_on_the_networks_own_grid(board: Opened) -> None:
    page = board.page
    page.click("#clear")
    page.uncheck("#prepare")
    page.focus("#pad")
    for key in (*["ArrowUp"] * 9, *["ArrowLeft"] * 9, "ArrowRight", "Space", "ArrowDown", "ArrowDown", *["Shift+ArrowDown"] * 3):
        page.keyboard.press(key)
    board.answered()
    image = seen(page).reshape(8, 8)
    assert image[0, 1] > 180 and image[2:6, 1].min() > 180, "a dot in row 1, column 2, and a line from row 3 to row 6"
    image[[0, 2, 3, 4, 5], 1] = 0
    assert image.max() < 10
    assert page.locator("#spoken").inner_text() == "row 6, column 2, drawn"
    page.keyboard.press("Delete")
    board.answered()
    assert not seen(page).any()
    page.check("#prepare")


def huge() -> bytes:
    """A PNG that says it has 100,000 × 100,000 pixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(100)


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("broken.png", lambda: png(np.zeros((30, 30), np.uint8))[:60], "image/png", "broken.png cannot be read as an image"),
        ("huge.png", huge, "image/png", "huge.png has 100000 × 100000 pixels"),
        ("words.txt", lambda: b"Hello", "text/plain", "words.txt is not an image (text/plain)"),
        ("<img src=x onerror=alert(1)>.png", lambda: b"x", "image/png", "<img src=x onerror=alert(1)>.png cannot be read"),
        ("none.png", lambda: b"", "image/png", "none.png is empty"),
    ],
)
def test_what_is_no_image_gets_a_sentence(board: Opened, name: str, content: Callable[[], bytes], kind: str, words: str) -> None:
    before = seen(board.page)
    upload(board, name, content(), kind)
    assert complaint(board).startswith(words)
    assert np.array_equal(seen(board.page), before), "the network keeps what it had"
    board.page.locator(".picture").first.click()
    assert board.page.locator("#input-error").is_hidden()
    assert board.quiet(), board.said


def test_a_photograph_of_dark_ink_on_paper_is_turned_round_and_prepared(board: Opened, digits: tuple[gc.Sequential, Any]) -> None:
    """A one, dark grey on light grey paper, in a corner of a larger image; dropped and pasted."""
    paper = np.full((90, 120), 210, np.uint8)
    paper[20:60, 70:77] = 60
    content = list(png(paper))
    hand_over = """([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], "photo.png", { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent(kind, { clipboardData: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    board.page.check("#prepare")
    for kind in ("drop", "paste"):
        board.page.click("#clear")
        board.answered()
        board.page.evaluate(hand_over, [kind, content])
        board.page.wait_for_function("() => gpucnn.state.bytes.some(Boolean)")
        board.answered()
        image = seen(board.page).reshape(8, 8)
        assert image[:, 3:5].max(axis=1).min() > 150 and not image[:, :3].any() and not image[:, 5:].any(), (
            "an upright stroke in the middle"
        )
        assert board.text("#answer").split()[0] == "1"
    board.page.evaluate(
        "() => document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer(), bubbles: true, cancelable: true }))"
    )
    assert complaint(board).startswith("What was dropped is not a file")
    assert board.quiet(), board.said


def test_the_camera_is_looked_at_until_it_is_closed(board: Opened) -> None:
    board.page.click("#clear")
    board.page.click("#camera")
    board.page.wait_for_function("() => gpucnn.state.bytes.some(Boolean)")
    board.page.click("#snap")
    assert board.page.locator("#camera-box").is_hidden()
    assert board.page.evaluate("() => document.getElementById('video').srcObject") is None
    board.page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(Object.assign(new Error('no'), { name: 'NotAllowedError' })); }"
    )
    board.page.click("#camera")
    assert complaint(board).startswith("The camera stays off: the browser was not allowed to use it")
    assert board.quiet(), board.said


def test_mnists_preparation_is_a_box_of_twenty_with_its_mass_in_the_middle(opened: Callable[..., Any]) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(10)).build((1, 28, 28), device="cpu")
    model.metadata = {"dataset_name": "mnist", "dataset": "mnist"}
    page = opened(model).page
    for digit in (4, 7):
        draw(page, digit)
        image = seen(page).reshape(28, 28).astype(float)
        rows, columns = np.nonzero(image.any(axis=1))[0], np.nonzero(image.any(axis=0))[0]
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        places = np.arange(28)
        centre = (image.sum(axis=1) @ places / image.sum(), image.sum(axis=0) @ places / image.sum())
        assert np.abs(np.subtract(centre, 14)).max() <= 0.5, "as in MNIST, whose centres of mass lie within half a pixel of 14"
        assert image.max() == 255


def test_coloured_images_keep_their_colours_and_cover_the_size(opened: Callable[..., Any]) -> None:
    model = gc.Sequential(gc.Conv2D(4, 3), gc.Flatten(), gc.Dense(2)).build((3, 10, 12), device="cpu")
    page = opened(model)
    wide = np.zeros((100, 240, 3), np.uint8)
    wide[:, :60] = [255, 0, 0]  # is cut off on the left
    wide[:, 60:120] = [20, 200, 40]
    wide[:, 120:] = [0, 0, 250]
    upload(page, "wide.png", png(wide), "image/png")
    page.page.wait_for_function("() => gpucnn.state.bytes.some(Boolean)")
    image = seen(page.page).reshape(3, 10, 12)
    np.testing.assert_allclose(image[:, 5, 2], [20, 200, 40], atol=3)
    np.testing.assert_allclose(image[:, 5, 9], [0, 0, 250], atol=3)
    assert image[0].max() < 60
    page.page.locator(".ink").nth(3).click()
    box = page.page.locator("#pad").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] * 6.5 / 12, box["y"] + box["height"] * 5.5 / 10)
    part = np.pi / 4  # of a cell that a dot of its size covers
    mixed = part * np.array([0xFE, 0x99, 0x29]) + (1 - part) * np.array([0, 0, 250])
    np.testing.assert_allclose(seen(page.page).reshape(3, 10, 12)[:, 5, 6], mixed, atol=25)
    assert page.quiet(), page.said


def mnist() -> Any:
    try:
        return gc.load_dataset("mnist", download=False)
    except (DataError, FileNotFoundError) as error:
        pytest.skip(f"MNIST is not here: {error}")


def test_strokes_of_all_ten_digits_are_told_apart(opened: Callable[..., Any]) -> None:
    """By dense layers, which see no more than where the ink lies: prepared as MNIST is, that of the mouse lies where MNIST's does."""
    data = mnist()
    model = gc.Sequential(gc.Flatten(), gc.Dense(64, activation="relu"), gc.Dense(10))
    model.build((1, 28, 28), seed=0, device="cpu").compile(gc.Adam(3e-3))
    model.fit(data.train_images[:20_000], data.train_labels[:20_000], batch_size=64, verbose=False)
    model.metadata = {"network": "dense", "dataset": "mnist", "dataset_name": "mnist", "class_names": list("0123456789")}
    page = opened(model)
    answers = []
    for digit in STROKES:
        draw(page.page, digit, moves=1)
        page.answered()
        answers.append(page.text("#answer").split()[0])
    assert answers == [str(digit) for digit in STROKES]
    assert page.quiet(), page.said


@pytest.mark.slow
def test_a_network_of_mnist_knows_its_digits_and_strokes_of_the_mouse(opened: Callable[..., Any]) -> None:
    data = mnist()
    model = gc.network("lenet5x5").build((1, 28, 28), seed=0, device="cpu").compile(gc.Adam(1e-3))
    model.fit(data.train_images, data.train_labels, batch_size=128, verbose=False)
    model.metadata = {"network": "lenet5x5", "dataset": "mnist", "dataset_name": "mnist", "class_names": list("0123456789")}
    page = opened(model, pictures.of_dataset(model, data))
    right = model.predict(data.test_images[:40])
    for image, probabilities in zip(data.test_images[:40], right, strict=True):
        upload(page, "digit.png", png(image[0]), "image/png")
        page.page.wait_for_function("bytes => String(gpucnn.state.bytes) === bytes", arg=",".join(map(str, image.flat)))
        page.answered()
        np.testing.assert_allclose(page.outputs()[-1], probabilities, atol=1e-5)
    answers = []
    for digit in STROKES:
        draw(page.page, digit)
        page.answered()
        answers.append(page.text("#answer").split()[0])
    assert answers == [str(digit) for digit in STROKES]
    assert page.quiet(), page.said
