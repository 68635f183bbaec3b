"""What people do with the page: look at values and follow them down, edit filters, slide windows, send links; by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import viewing
from gpucnn.text import plain
from gpucnn.viewing import pictures

from .conftest import Opened

F = gc.functional


def small() -> gc.Sequential:
    """A convolution over one channel, one over several, both kinds of pooling, dense layers."""
    model = gc.Sequential(
        gc.Conv2D(6, 3, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(20, 3, activation="tanh"),
        gc.AvgPool2D(2),
        gc.Flatten(),
        gc.Dense(50, activation="relu"),
        gc.Dense(4),
    )
    model.build((1, 14, 14), seed=5, device="cpu").compile()
    for name, array in model.parameters.items():
        if name.endswith("bias"):
            array.value = np.random.default_rng(1).normal(size=array.shape) * 0.1
    model.metadata = {"network": "small", "class_names": ["ant", "bee", "cat", "dog"]}
    return model


MODEL = small()
IMAGES = np.random.default_rng(2).integers(0, 256, (3, 1, 14, 14)).astype(np.uint8)
SHOWN = pictures.given(MODEL, IMAGES, ["first", "second", "third"])


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    path = tmp_path_factory.mktemp("page") / "page.html"
    viewing.write(MODEL, path, SHOWN)
    opened = Opened(browser, path)
    yield opened
    opened.page.close()


def go(page: Opened, address: str) -> None:
    """Follows a link within the page."""
    page.page.evaluate("address => { location.hash = address; }", address)
    page.page.wait_for_timeout(30)
    page.answered()


def numbers(page: Opened, selector: str) -> list[float]:
    """Numbers as the page shows them, in full where it keeps them in a title."""
    found = page.page.eval_on_selector_all(selector, "all => all.map(each => each.title || each.textContent)")
    return [float(text.replace("−", "-").replace(",", "")) for text in found]


def test_products_add_up_to_the_value_shown(page: Opened) -> None:
    x = IMAGES[1:2] / np.float32(255)
    for name, at in (("conv2d_1", (2, 0, 0)), ("conv2d_1", (5, 7, 9)), ("conv2d_2", (11, 2, 3))):
        go(page, f"image=2&layer={name}&unit={','.join(map(str, at))}")
        value = float(np.asarray(MODEL.features(x, name))[0][at])
        for more in page.page.locator(".more", has_text="more maps below").all():
            more.click()
        assert float(page.page.locator(".at").get_attribute("data-value")) == pytest.approx(value, abs=1e-6)
        lines = page.page.locator("#inspector .line").count()
        assert lines == (1 if name == "conv2d_1" else 6)
        total = 0.0
        for i in range(lines):
            line = f"#inspector .line >> nth={i}"
            patch, weights, products = (
                page.page.locator(line).locator(f"figure >> nth={n}").locator("td").evaluate_all("all => all.map(each => each.title)")
                for n in range(3)
            )
            taps = [(0.0 if p == "padding" else float(p), float(w), q) for p, w, q in zip(patch, weights, products, strict=True)]
            assert all(float(q) == pytest.approx(p * w, abs=1e-9) for p, w, q in taps if q != "padding")
            total += sum(p * w for p, w, _ in taps)
        terms = numbers(page, "#inspector .equation .value")
        assert terms[0] == pytest.approx(total, abs=1e-6)
        assert terms[2] == pytest.approx(terms[0] + terms[1], abs=1e-6)
        applied = np.maximum(terms[2], 0) if name == "conv2d_1" else np.tanh(terms[2])
        assert terms[3] == pytest.approx(applied, abs=1e-6) and terms[3] == pytest.approx(value, abs=1e-6)
    assert page.quiet(), page.said


def test_a_pooled_value_is_the_largest_of_its_window_or_the_mean(page: Opened) -> None:
    below = np.asarray(MODEL.features(IMAGES[:1] / np.float32(255), "conv2d_1"))[0, 3, 4:6, 8:10]
    go(page, "image=1&layer=maxpool2d_1&unit=3,2,4")
    assert numbers(page, "#inspector td") == pytest.approx(below.reshape(-1).tolist(), abs=1e-6)
    assert numbers(page, "#inspector td.strong") == pytest.approx([below.max()], abs=1e-6)
    assert page.page.locator(".tile canvas.below").count() == 6, "each map with the winners of its windows beside it"
    page.page.locator(".more", has_text="winner").click()
    page.answered()
    assert page.text("#layer-title span:first-child") == "conv2d_1"
    assert float(page.page.locator(".at").get_attribute("data-value")) == pytest.approx(below.max(), abs=1e-6)
    go(page, "image=1&layer=avgpool2d_1&unit=7,0,1")
    terms = numbers(page, "#inspector .equation .value")
    window = numbers(page, "#inspector td")
    assert terms[0] == pytest.approx(sum(window), abs=1e-6) and terms[2] == pytest.approx(sum(window) / 4, abs=1e-6)


def test_terms_of_a_dense_value_add_up_and_lead_down(page: Opened) -> None:
    go(page, "image=3&layer=dense_1&unit=12")
    rows = page.page.locator("#inspector .terms tbody tr")
    products = numbers(page, "#inspector .terms tbody td:last-child")
    assert len(products) == 11 and abs(products[0]) >= abs(products[9])
    terms = numbers(page, "#inspector .equation .value")
    assert terms[0] == pytest.approx(sum(products), abs=1e-6)
    assert terms[2] == pytest.approx(terms[0] + terms[1], abs=1e-6) and terms[3] == pytest.approx(max(terms[2], 0), abs=1e-6)
    assert re.fullmatch(r"map \d+, row \d, column \d", rows.first.locator("th").inner_text())
    value = numbers(page, "#inspector .terms tbody tr:first-child td:nth-child(2)")[0]
    rows.first.click()
    page.answered()
    assert page.text("#layer-title span:first-child") == "flatten_1"
    assert float(page.page.locator(".at").get_attribute("data-value")) == pytest.approx(value, abs=1e-6)


def test_probabilities_and_what_they_are_made_of(page: Opened) -> None:
    right = MODEL.predict(IMAGES[2:3])[0]
    go(page, "image=3&layer=dense_1")
    page.page.locator("#bars .row").nth(2).click()
    page.answered()
    assert page.text("#layer-title span:first-child") == "probabilities"
    assert page.text("#inspector h3").startswith("probabilities, cat")
    assert numbers(page, "#inspector .equation .value")[-1] == pytest.approx(right[2], abs=1e-6)
    assert page.page.locator("#bars .name").all_inner_texts() == ["ant", "bee", "cat", "dog"]
    assert page.text("#answer").split()[0] == ["ant", "bee", "cat", "dog"][right.argmax()]


def test_the_mouse_shows_and_a_click_pins(page: Opened) -> None:
    go(page, "image=1&layer=conv2d_2&unit=0,0,0")
    assert page.page.locator("#seen-caption").inner_text() == "This value sees 7 × 7 of 14 × 14 pixels"  # at the edge; 8 × 8 within
    canvas = page.page.locator("#maps canvas.map").first
    box = canvas.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 2.5 / 5, box["y"] + box["height"] * 3.5 / 5)
    page.answered()
    place = re.fullmatch(r"conv2d_2, map (\d+), row 4, column 3", page.text("#inspector h3").split("\n")[0])
    assert place and page.page.locator("#seen-caption").inner_text() == "This value sees 8 × 8 of 14 × 14 pixels"
    mark = page.page.locator("#field").bounding_box()
    seen = page.page.locator("#seen").bounding_box()
    assert mark["width"] / seen["width"] == pytest.approx(8 / 14, rel=0.02)
    assert (mark["y"] - seen["y"]) / seen["height"] == pytest.approx(5 / 14, abs=0.02)
    page.page.mouse.move(5, 5)
    page.answered()
    assert "map 1, row 1, column 1" in page.text("#inspector h3"), "what was pinned before"
    canvas.click(position={"x": 3, "y": 3})
    page.page.mouse.move(5, 5)
    page.answered()
    assert f"map {place[1]}, row 1, column 1" in page.text("#inspector h3")


def test_an_edited_filter_changes_the_maps_as_conv2d_says(page: Opened) -> None:
    x = IMAGES[:1] / np.float32(255)
    weight, bias = (np.array(MODEL.parameters[f"conv2d_1.{name}"].value) for name in ("weight", "bias"))
    go(page, "image=1&layer=conv2d_1&unit=4,3,3")
    sharpen = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
    for name, filter_ in (
        ("sharpen", sharpen),
        ("edge", np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)),
        ("blur", np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16),
        ("emboss", np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)),
        ("identity", np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)),
    ):
        page.page.locator("#editor").get_by_role("button", name=name).click()
        page.answered()
        edited = weight.copy()
        edited[4, 0] = filter_
        expected = F.relu(F.conv2d(x, edited, bias, padding="same"))
        np.testing.assert_allclose(page.outputs()[1], expected.reshape(-1), atol=2e-6)
    cell = page.page.locator(".weights input").nth(5)
    cell.fill("-2.5")
    page.answered()
    edited[4, 0, 1, 2] = -2.5
    np.testing.assert_allclose(page.outputs()[1], F.relu(F.conv2d(x, edited, bias, padding="same")).reshape(-1), atol=2e-6)
    page.page.locator("#undo-edits").click()
    page.answered()
    np.testing.assert_allclose(page.outputs()[1], np.asarray(MODEL.features(x, "conv2d_1")).reshape(-1), atol=2e-6)
    assert page.page.locator("#undo-edits").is_hidden() and page.quiet(), page.said


def test_one_channel_of_a_deep_filter_alone(page: Opened) -> None:
    x = np.asarray(MODEL.features(IMAGES[:1] / np.float32(255), "maxpool2d_1"))
    weight, bias = (np.array(MODEL.parameters[f"conv2d_2.{name}"].value) for name in ("weight", "bias"))
    go(page, "image=1&layer=conv2d_2&unit=9,1,1")
    page.page.locator("#channel").fill("3")
    page.page.locator("#channel").press("Enter")
    page.page.locator("#editor").get_by_role("button", name="blur").click()
    page.page.check("#alone")
    page.answered()
    weight[9] = 0
    weight[9, 2] = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = np.tanh(F.conv2d(x, weight, bias))
    np.testing.assert_allclose(page.outputs()[3], expected.reshape(-1), atol=2e-6)
    page.page.locator("#as-trained").click()
    page.answered()
    np.testing.assert_allclose(
        page.outputs()[3], np.asarray(MODEL.features(IMAGES[:1] / np.float32(255), "conv2d_2")).reshape(-1), atol=2e-6
    )


def test_filters_of_transposed_and_separable_convolutions_can_be_edited_too(opened: Callable[..., Opened]) -> None:
    layers = [gc.SeparableConv2D(4, 3, padding="same"), gc.ConvTranspose2D(6, 3, stride=2, padding=1, output_padding=1, groups=2)]
    model = gc.Sequential(*layers, gc.LocallyConnected2D(2, 3), gc.GlobalAvgPool2D()).build((2, 6, 6), seed=3, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 6, 6)).astype(np.uint8)
    page = opened(model, pictures.given(model, images), "#image=1&layer=convtranspose2d_1&unit=4,3,3")
    x = np.asarray(model.features(images / np.float32(255), "separableconv2d_1"))
    weight, bias = (np.array(model.parameters[f"convtranspose2d_1.{name}"].value) for name in ("weight", "bias"))

    def says(edited: np.ndarray[Any, Any]) -> None:
        page.answered()
        expected = F.conv_transpose2d(x, edited, bias, stride=2, padding=1, output_padding=1, groups=2)
        np.testing.assert_allclose(page.outputs()[page.node("convtranspose2d_1")], np.asarray(expected).reshape(-1), atol=2e-6)

    says(weight)
    page.page.locator("#channel").fill("2")
    page.page.locator("#channel").press("Enter")
    page.page.locator("#editor").get_by_role("button", name="blur").click()
    edited = weight.copy()
    edited[3, 1] = np.outer([1, 2, 1], [1, 2, 1]) / 16  # map 5 of 6 is the second of the second group; its map 2 below is the fourth
    says(edited)
    page.page.check("#alone")
    edited[2, 1] = 0
    says(edited)
    assert page.text("#formula").endswith("= (6 − 1) × 2 + 3 − 2 + 1 = 12")
    page.page.wait_for_timeout(250)
    assert "edit=convtranspose2d_1:4:1:only:blur" in page.page.evaluate("location.hash")
    page.page.locator("#as-trained").click()
    says(weight)
    inner = next(name for name in model.parameters if name.startswith("separableconv2d_1")).removesuffix(".weight")
    go(page, f"image=1&layer={inner}&edit={inner}:1:0:edge")
    assert page.page.locator("#sandbox #padded").is_visible()
    own = np.array(model.parameters[f"{inner}.weight"].value)
    own[1, 0] = [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]
    expected = np.asarray(F.conv2d(images / np.float32(255), own, padding="same", groups=2)).reshape(-1)
    np.testing.assert_allclose(page.outputs()[page.node(inner)], expected, rtol=1e-5, atol=2e-6)
    go(page, "image=1&layer=locallyconnected2d_1")
    assert page.text("#editor").startswith("Here every place has filters of its own") and page.text("#sandbox") == ""
    assert page.quiet(), page.said


def test_the_sandbox_slides_as_the_formula_says(page: Opened) -> None:
    x = IMAGES[:1] / np.float32(255)
    go(page, "image=1&layer=conv2d_1&unit=2,0,0")
    filter_, bias = MODEL.parameters["conv2d_1.weight"].value[2:3], MODEL.parameters["conv2d_1.bias"].value[2:3]
    for rule in ("same", "valid"):
        for stride in (1, 2, 3):
            page.page.locator(f"#sandbox input[value={rule}]").check()
            page.page.select_option("#stride", str(stride))
            expected = np.asarray(F.conv2d(x, filter_, bias, padding=rule, stride=stride))[0, 0]
            assert page.text("#formula").endswith(f"+ 1 = {expected.shape[0]}")
            page.page.locator("#at").fill(str(expected.size - 2))
            assert numbers(page, "#step .value")[0] == pytest.approx(expected.reshape(-1)[-2], abs=1e-6)
            page.page.get_by_role("button", name="One step on").click()
            assert numbers(page, "#step .value")[0] == pytest.approx(expected[-1, -1], abs=1e-6)
    page.page.locator("#at").fill("0")
    page.page.locator("#run").click()
    page.page.wait_for_function("() => gpucnn.state.sandbox.at === 15")  # 4 × 4 positions: it stops at the last one
    page.page.wait_for_function("() => document.getElementById('run').textContent === 'Play'")
    assert page.quiet(), page.said


def test_a_link_shows_the_same_again(page: Opened, opened: Callable[..., Opened]) -> None:
    go(page, "image=2&layer=conv2d_2&unit=13,4,0&edit=conv2d_1:4:0:only:edge&edit=conv2d_2:1:5:1,2,3,4,5,6,7,8,9&sandbox=same,2,5")
    outputs, title = page.outputs(), page.text("#inspector h3")
    page.page.wait_for_timeout(250)
    address = page.page.evaluate("location.hash")
    other = opened(MODEL, SHOWN, address)
    for found, expected in zip(other.outputs(), outputs, strict=True):
        assert np.array_equal(found, expected)
    assert other.text("#inspector h3") == title and other.page.locator("#stride").input_value() == "2"
    page.page.locator("#undo-edits").click()
    box = page.page.locator("#pad").bounding_box()
    page.page.mouse.move(box["x"] + 30, box["y"] + 50)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 90, box["y"] + 120, steps=5)
    page.page.mouse.up()
    page.answered()
    page.page.wait_for_timeout(250)
    drawn = page.page.evaluate("() => String(gpucnn.state.bytes)")
    go(other, page.page.evaluate("location.hash"))
    assert other.page.evaluate("() => String(gpucnn.state.bytes)") == drawn, "a drawing is in the address as well"
    for nonsense in (
        "layer=none",
        "image=99",
        "drawn=@@",
        "drawn=AAA",
        "unit=1,2",
        "edit=conv2d_1:9:0:1",
        "edit=x",
        "edit=conv2d_1:0:0:1,2,x,4,5,6,7,8,9",
        "edit=dense_1:0:0:edge",
        "layer=conv2d_1&unit=a,b,c",
        "sandbox=a,b,c",
        "%",
        "image=-1",
    ):
        go(other, nonsense)
    assert other.quiet(), other.said


def test_the_keyboard_alone(page: Opened) -> None:
    go(page, "image=1&layer=conv2d_1&unit=0,0,0")
    page.page.locator("#ribbon .block").nth(3).focus()
    page.page.keyboard.press("Enter")
    page.answered()
    assert page.text("#layer-title span:first-child") == "conv2d_2"
    page.page.locator("#after").focus()
    page.page.keyboard.press("Tab")
    for _ in range(3):
        page.page.keyboard.press("Tab") if page.page.evaluate("document.activeElement.className !== 'map'") else None
    assert page.page.evaluate("document.activeElement.className") == "map"
    page.answered()
    assert "row 3, column 3" in page.text("#inspector h3"), "the middle, where the keyboard comes in"
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.page.keyboard.press(key)
    page.answered()
    assert "row 4, column 5" in page.text("#inspector h3") and "row 4, column 5" in page.text("#spoken")
    page.page.locator(".more", has_text="largest product").focus()
    page.page.keyboard.press("Enter")
    page.answered()
    assert page.text("#layer-title span:first-child") == "maxpool2d_1"
    missing = page.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, canvas[tabindex]")]
        .filter(each => each.offsetParent && !(each.textContent.trim() || each.ariaLabel || each.labels?.length || each.title))
        .map(each => each.outerHTML)"""
    )
    assert missing == [], "everything that can be reached says what it is"


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (390, "light"), (820, "light"), (2560, "dark")])
def test_no_width_scrolls_sideways(page: Opened, width: int, scheme: str) -> None:
    page.page.set_viewport_size({"width": width, "height": 800})
    page.page.emulate_media(color_scheme=scheme)
    for layer in ("input", "conv2d_2", "maxpool2d_1", "dense_1", "probabilities"):
        go(page, f"image=1&layer={layer}")
        assert page.page.evaluate("document.documentElement.scrollWidth") == width, layer
    brightness = page.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (brightness > 128) == (scheme == "light")
    page.page.set_viewport_size({"width": 1280, "height": 720})
    page.page.emulate_media(color_scheme="light")
    assert page.quiet(), page.said


def test_the_theme_can_be_turned(page: Opened) -> None:
    dark = "() => getComputedStyle(document.documentElement).colorScheme"
    found = []
    for _ in range(3):
        page.page.click("#theme")
        found.append((page.text("#theme"), page.page.evaluate(dark)))
    assert found == [("Theme: light", "light"), ("Theme: dark", "dark"), ("Theme: auto", "light")]


def test_paper_has_no_tools(page: Opened) -> None:
    page.page.emulate_media(media="print")
    assert page.page.locator("#ribbon").is_visible() and not page.page.locator("#clear").is_visible()
    assert not page.page.locator("#play").is_visible()
    page.page.emulate_media(media="screen")


def test_paper_is_light_whatever_the_screen_is(page: Opened) -> None:
    ink = "() => getComputedStyle(document.querySelector('h1')).color.match(/\\d+/g).map(Number)[0]"
    page.page.emulate_media(color_scheme="dark")
    assert page.page.evaluate(ink) > 200
    page.page.emulate_media(media="print", color_scheme="dark")
    assert page.page.evaluate(ink) < 60
    page.page.emulate_media(media="screen", color_scheme="light")
    page.page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    assert page.page.evaluate(ink) > 200
    page.page.emulate_media(media="print")
    assert page.page.evaluate(ink) < 60
    page.page.evaluate("() => { delete document.documentElement.dataset.theme; }")
    page.page.emulate_media(media="screen")


def test_large_layers_come_by_the_page_the_strongest_maps_first(page: Opened) -> None:
    go(page, "image=1&layer=conv2d_2")
    strength = np.abs(np.asarray(MODEL.features(IMAGES[:1] / np.float32(255), "conv2d_2"))[0]).sum(axis=(1, 2))
    first = page.page.locator("#maps .map").count()
    assert first == 16 and "1–16 of 20 maps, the strongest first" in page.text("#pages")
    said = [int(text.split()[1]) for text in page.page.locator("#maps").inner_text().split("\n") if text.startswith("map ")]
    page.page.get_by_role("button", name="The next page").click()
    page.answered()
    assert page.page.locator("#maps .map").count() == 4 and "17–20 of 20" in page.text("#pages")
    rest = [int(text.split()[1]) for text in page.page.locator("#maps").inner_text().split("\n") if text.startswith("map ")]
    assert [*said, *rest] == [int(number) + 1 for number in np.argsort(-strength)]
    assert page.page.get_by_role("button", name="The next page").is_disabled()
    page.page.get_by_role("button", name="The page before").click()
    assert "1–16 of 20" in page.text("#pages")


def test_nothing_moves_by_itself_where_motion_is_not_wanted(page: Opened) -> None:
    page.page.emulate_media(reduced_motion="reduce")
    moving = """() => [...document.querySelectorAll("*")].filter(each => {
      const style = getComputedStyle(each);
      return style.transitionDuration !== "0s" || style.animationName !== "none" || style.scrollBehavior === "smooth";
    }).length"""
    assert page.page.evaluate(moving) == 0
    page.page.emulate_media(reduced_motion="no-preference")
    assert page.page.evaluate(moving) > 0  # or nothing would have been looked at


# What the name of a class, an image or a data set may hold, and must reach no browser as anything but text.
HOSTILE = [
    '<script>alert("x")</script>',
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "</style></title></svg></script></textarea><svg onload=alert(1)>",
    "--> ]]> <!-- a",
    "&lt;b&gt; &#60;b&#62; {{policy}} ${alert(1)}",
    "a\u202eb\x00c\x1b[31m\u2028d\ud800",
]


def test_no_name_is_anything_but_text(opened: Callable[..., Opened]) -> None:
    model = gc.Sequential(gc.Flatten(), gc.Dense(len(HOSTILE))).build((1, 6, 6), device="cpu")
    model.metadata = {"network": HOSTILE[3], "dataset_name": HOSTILE[4], "class_names": HOSTILE}
    shown = pictures.given(model, np.zeros((len(HOSTILE), 1, 6, 6), np.uint8), HOSTILE)
    page = opened(model, shown)
    names = [plain(name) for name in HOSTILE]
    assert page.page.locator("#bars .name").all_text_contents() == names
    assert page.page.locator(".picture span").all_text_contents() == names
    assert page.page.locator("h1").text_content() == names[3] and page.page.title().startswith(names[3].strip())
    assert names[4] in (page.page.locator("#facts").text_content() or "")
    for number in range(len(HOSTILE)):
        page.page.locator("#bars .row").nth(number).click()
    assert page.page.locator("script").count() == 1 and page.page.locator("svg, img, b").count() == 0
    assert page.quiet(), page.said


class Doubled(gc.layers.Layer):
    """A layer of the user's own: twice its input, turned round."""

    def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        return 2 * x[..., ::-1]


def test_a_layer_of_ones_own_is_known_for_the_images_that_came_along(opened: Callable[..., Opened]) -> None:
    model = (
        gc.Sequential(gc.Conv2D(3, 3, activation="relu"), Doubled(), gc.Flatten(), gc.Dense(4))
        .build((1, 8, 8), seed=1, device="cpu")
        .compile()
    )
    images = np.random.default_rng(3).integers(0, 256, (2, 1, 8, 8)).astype(np.uint8)
    page = opened(model, pictures.given(model, images), "#image=2&layer=doubled_1")
    np.testing.assert_allclose(page.outputs()[-1], model.predict(images[1:])[0], atol=1e-6)
    assert "layer of somebody’s own" in page.text("#notes") and "computed in Python" in page.text("#inspector").lower().replace(
        "in python", "in Python"
    )
    box = page.page.locator("#pad").bounding_box()
    page.page.mouse.click(box["x"] + 40, box["y"] + 40)
    page.answered()
    outputs = page.outputs()
    assert outputs[1] is not None and outputs[2] is None and outputs[-1] is None
    assert page.text("#answer").startswith("Not known") and page.text("#maps").startswith("Not known for drawings")
    for block in page.page.locator("#ribbon .block").all():
        block.click()
    page.page.locator(".picture").first.click()
    page.answered()
    np.testing.assert_allclose(page.outputs()[-1], model.predict(images[:1])[0], atol=1e-6)
    assert page.quiet(), page.said


def test_a_model_of_rows_takes_numbers(opened: Callable[..., Opened]) -> None:
    model = gc.Sequential(gc.Dense(5, activation="gelu"), gc.Dense(1)).build((3,), seed=1, device="cpu").compile(loss="mse")
    page = opened(model)
    page.page.fill("#numbers", "0.5, -1 2e-1")
    page.answered()
    np.testing.assert_allclose(page.outputs()[-1], model.predict(np.array([[0.5, -1, 0.2]], np.float32))[0], atol=1e-6)
    page.page.fill("#numbers", "1 2")
    assert page.text("#input-error") == "2 numbers were given, and the network takes 3."
    page.page.fill("#numbers", "1 2 x")
    assert page.text("#input-error") == "Number 3 cannot be read as one."
    assert page.quiet(), page.said


def test_a_page_without_a_worker_computes_by_itself(opened: Callable[..., Opened], tmp_path: Any, browser: Any) -> None:
    path = tmp_path / "page.html"
    viewing.write(MODEL, path, SHOWN)
    page = browser.new_page()
    page.add_init_script("delete globalThis.Worker;")
    page.goto(path.as_uri())
    page.wait_for_function("() => globalThis.gpucnn && gpucnn.state.answers > 0 && gpucnn.state.runner.network")
    page.evaluate("() => { location.hash = 'image=3&layer=conv2d_1&edit=conv2d_1:0:0:edge'; }")
    page.wait_for_function("() => gpucnn.state.answers > 1 && !gpucnn.state.runner.running")
    assert page.locator("#answer").inner_text().split()[0] in ("ant", "bee", "cat", "dog")
    page.close()


def test_every_layer_is_told_of_in_words_and_numbers(page: Opened) -> None:
    told = {}
    for layer in ("input", "conv2d_1", "maxpool2d_1", "conv2d_2", "avgpool2d_1", "flatten_1", "dense_1", "dense_2", "probabilities"):
        go(page, f"image=1&layer={layer}")
        told[layer] = f"{page.text('#layer-words')} {page.text('#layer-sizes')}"
    assert told["conv2d_1"].startswith("6 filters of 3 × 3 pixels slide over the image; each writes a map")
    assert "Zeros around the edge keep the size. Then ReLU: what is negative becomes 0." in told["conv2d_1"]
    assert "6 × 1 × 3 × 3 = 54 weights + 6 biases = 60" in told["conv2d_1"]
    assert "slide over all 6 maps below" in told["conv2d_2"] and "20 × 6 × 3 × 3 = 1,080 weights + 20 biases = 1,100" in told["conv2d_2"]
    assert "Of each window of 2 × 2 pixels only the largest is kept" in told["maxpool2d_1"]
    assert "50 × 80 = 4,000 weights + 50 biases = 4,050" in told["dense_1"]
    assert all("undefined" not in words and "NaN" not in words for words in told.values())
