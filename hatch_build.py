"""What a package index shows: the README as it can be read there, and the project's links.

A package index shows README.md alone, without the files beside it. Where GPUCNN_REPOSITORY names the repository's address while a wheel or
an sdist is built, as in `make wheel GPUCNN_REPOSITORY=https://…`, relative links and images lead there, at the tag of the version, and the
metadata has the project's links. Without it there is no such address: links become their text and path, and images a note of
where they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "GPUCNN_REPOSITORY"


def readme(text: str, repository: str, version: str) -> str:
    """The README `text` for a reader who has nothing but it. `repository` is an address on a host that has /blob/ and /raw/, or empty."""

    def picture(found: re.Match[str]) -> str:
        if re.match(r"https?:", found[2]):
            return found[0]
        return (
            f"![{found[1]}]({repository}/raw/v{version}/{found[2]})" if repository else f"*Picture, {found[2]} in the sdist: {found[1]}.*"
        )

    def link(found: re.Match[str]) -> str:
        if re.match(r"https?:|#", found[2]):
            return found[0]
        return f"[{found[1]}]({repository}/blob/v{version}/{found[2]})" if repository else f"{found[1]} (`{found[2]}`)"

    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[([^\]]*)\]\(([^)\s]+)\)", picture, text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def links(repository: str, version: str) -> dict[str, str]:
    """The project's links, as metadata names them."""
    if not repository:
        return {}
    tree = f"{repository}/blob/v{version}"
    return {
        "Repository": repository,
        "Documentation": f"{tree}/docs/tutorial.md",
        "Changelog": f"{tree}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class Hook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get(VARIABLE, "").rstrip("/")
        if repository and not re.fullmatch(r"https://\S+", repository):
            raise ValueError(f"{VARIABLE}={repository}: give the https address of the repository, or leave it out")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        version = str(metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": readme(text, repository, version)}
        metadata["urls"] = links(repository, version)
