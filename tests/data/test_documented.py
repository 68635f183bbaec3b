"""docs/data.md says what there is."""

from pathlib import Path

import pytest

from gpucnn.data import cifar, mnist, names
from gpucnn.data.files_of import FILES

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
if not DOCUMENT.exists():
    pytest.skip("the documents are not part of this copy", allow_module_level=True)
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_every_set_by_name_and_no_other():
    table = TEXT.partition("## By name")[2].partition("##")[0]
    rows = {line.split("|")[1].strip().strip("`"): line for line in table.splitlines() if line.startswith("| `")}
    assert set(rows) == set(names())
    for name, source in mnist.SOURCES.items():
        assert f"{source.train_shape[0]:,} + {source.test_shape[0]:,} of 28×28" in rows[name]
        assert f"| {len(source.class_names)} |" in rows[name]
    for name, source in cifar.SOURCES.items():
        assert (
            f"{source.train_images:,} + {source.test_images:,} of 3×32×32" in rows[name] and f"| {len(source.class_names)} |" in rows[name]
        )


@pytest.mark.parametrize("ending", FILES)
def test_every_kind_of_file(ending):
    assert f"{ending}`" in TEXT.partition("## By file")[2].partition("##")[0]
