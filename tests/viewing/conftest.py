"""Pages in a real browser, headless, and what they say."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import viewing
from gpucnn.viewing import pictures

# Numbers as base64, so that they come over as they are.
OUTPUTS = """() => gpucnn.state.outputs.map(values => {
  if (!values) return null;
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
})"""


class Opened:
    """A page, with all that it said to the console, and all that it asked for."""

    def __init__(self, browser: Any, path: Path, address: str = "", **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(20_000)
        self.page.goto(path.as_uri() + address)
        self.answered()

    def answered(self) -> None:
        """Waits until the network has answered the newest input, and the page has drawn what it said."""
        self.page.wait_for_function("() => globalThis.gpucnn && gpucnn.state.answers > 0 && !gpucnn.state.runner.running")
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def outputs(self) -> list[np.ndarray[Any, Any] | None]:
        """What every node puts out, flat."""
        return [None if text is None else np.frombuffer(base64.b64decode(text), np.float32) for text in self.page.evaluate(OUTPUTS)]

    def node(self, name: str) -> int:
        return int(self.page.evaluate("name => gpucnn.state.network.nodes.findIndex(node => node.name === name)", name))

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def quiet(self) -> bool:
        return self.said == [] and [url.split(":")[0] for url in self.asked].count("file") == 1 and self.own()

    def own(self) -> bool:
        """Whether all that was asked for was the page itself and its worker."""
        return all(url.startswith(("file:", "blob:")) for url in self.asked)


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Writes the page of a model and opens it: opened(model, pictures, address, title=…, dtype=…, and what the browser's page takes)."""
    pages: list[Opened] = []

    def make(model: gc.Sequential, shown: pictures.Pictures | None = None, address: str = "", **options: Any) -> Opened:
        own = {name: options.pop(name) for name in ("title", "dtype") if name in options}
        path = tmp_path / f"page-{len(pages)}.html"
        viewing.write(model, path, shown, **own)
        pages.append(Opened(browser, path, address, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.page.close()
