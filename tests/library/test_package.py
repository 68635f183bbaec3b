"""What is built, installed and cited: one version everywhere, a README that can be read on a package index, hints that can be followed."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import gpucnn
from gpucnn import surroundings

ROOT = Path(gpucnn.__file__).parents[1]
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("this copy was installed, and has nothing to build from", allow_module_level=True)
TEXTS = (".py", ".md", ".toml", ".cff", ".js", ".html", ".yml")


def sources() -> list[Path]:
    folders = ("gpucnn", "kernels", "examples", "docs", "tests")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS and ".cache" not in path.parts]
    return [*found, *(path for path in ROOT.iterdir() if path.suffix in TEXTS), ROOT / "Makefile"]


def test_one_version_everywhere() -> None:
    citation, changes = ((ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    releases = re.findall(r"^## (\d+\.\d+\.\d+) – (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert releases and releases[0][0] == gpucnn.__version__
    assert f"\nversion: {gpucnn.__version__}\n" in citation and f'\ndate-released: "{releases[0][1]}"\n' in citation
    assert releases == sorted(releases, key=lambda release: tuple(map(int, release[0].split("."))), reverse=True)


def test_the_citation_is_one() -> None:
    """By the rules of the Citation File Format 1.2.0, as far as this file uses it; by its own validator where that is installed."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found = yaml.safe_load(text)
    strings = {"cff-version", "message", "title", "type", "version", "date-released", "license", "abstract"}
    assert found.keys() == strings | {"authors", "keywords"}
    assert all(isinstance(found[key], str) and found[key] for key in strings) and found["cff-version"] == "1.2.0"
    assert found["type"] in ("software", "dataset") and datetime.date.fromisoformat(found["date-released"])
    assert found["authors"] and all(
        author.keys() <= {"name", "given-names", "family-names", "orcid", "email"} for author in found["authors"]
    )
    assert all(isinstance(word, str) for word in found["keywords"]) and len(set(found["keywords"])) == len(found["keywords"])
    if importlib.util.find_spec("cffconvert"):
        from cffconvert import Citation

        Citation(text).validate()


def hook() -> Any:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_index_shows_no_link_that_leads_nowhere() -> None:
    build, text = hook(), (ROOT / "README.md").read_text(encoding="utf-8")
    alone = build.readme(text, "", "1.2.3")
    assert not re.findall(r"\]\((?!https://)", alone) and "![" not in alone and "<!--" not in alone and build.links("", "1.2.3") == {}
    assert "docs/view.png in the sdist" in alone and "tutorial (`docs/tutorial.md`)" in alone
    home = "https://host.example/someone/gpucnn"
    linked = build.readme(text, home, "1.2.3")
    assert not re.findall(r"\]\((?!https://)", linked) and f"]({home}/raw/v1.2.3/docs/view.png)" in linked
    assert f"[tutorial]({home}/blob/v1.2.3/docs/tutorial.md)" in linked and set(build.links(home, "1")) >= {"Repository", "Changelog"}
    assert build.readme("[a](https://b.example) ![c](https://d.example/e.png) [f](#g)", "", "1") == (
        "[a](https://b.example) ![c](https://d.example/e.png) [f](#g)"
    )


def test_nothing_says_to_install_gpucnn_from_an_index() -> None:
    wrong = re.compile(r"""(?:pip|uv) (?:pip )?(?:install|add|download)(?: -\S+)* \\?["'.]?gpucnn(?!-\{|-\d)""")
    own = 'pip install "gpucnn[plot]" and pip install --upgrade gpucnn'  # what is looked for
    assert len(wrong.findall(own)) == 2 and not wrong.findall('pip install -e ".[plot]"; pip install "dist/gpucnn-1.0.whl"')
    found = [f"{path.relative_to(ROOT)}: {hit}" for path in sources() if path != Path(__file__) for hit in wrong.findall(read(path))]
    assert found == []


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def test_hints_name_the_checkout_or_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert surroundings.install("plot") == f'pip install -e "{ROOT}[plot]"'
    monkeypatch.setattr(surroundings, "__file__", str(tmp_path / "gpucnn" / "surroundings.py"))
    listed = ["numpy>=2", "pillow>=10.4; extra == 'parquet'", "pyarrow>=17; (os_name == 'nt') and extra == 'parquet'", "a; extra == 'mpi'"]
    monkeypatch.setattr(metadata, "requires", lambda name: listed if name == "gpucnn" else None)
    assert surroundings.install("parquet") == 'pip install "pillow>=10.4" "pyarrow>=17"'
    assert surroundings.install("plot") == "install what pyproject.toml lists under plot"  # an older package is installed beside
    monkeypatch.setattr(metadata, "requires", lambda name: metadata.distribution("no package of this name"))
    assert surroundings.install("mpi") == "install what pyproject.toml lists under mpi"


@pytest.mark.slow  # half a minute with the training
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_can_be_installed_and_trains(kind: str, tmp_path: Path) -> None:
    """In an environment that sees the dependencies installed here, and no gpucnn but the one that was built."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    pytest.importorskip("sklearn")
    source = ROOT
    if kind == "sdist":
        run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], ROOT)
        with tarfile.open(next(tmp_path.glob("gpucnn-*.tar.gz"))) as archive:
            archive.extractall(tmp_path, filter="data")
        source = tmp_path / f"gpucnn-{gpucnn.__version__}"
        assert {"docs", "tests", "Makefile", "CITATION.cff", "hatch_build.py", "PKG-INFO"} <= {path.name for path in source.iterdir()}
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], source)
    wheel = tmp_path / f"gpucnn-{gpucnn.__version__}-py3-none-any.whl"
    home = tmp_path / "clean"
    venv.create(home, with_pip=False)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)], tmp_path)
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    where = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip()
    (Path(where) / "dependencies.pth").write_text("\n".join(dict.fromkeys(packages)))
    found = run([str(python), "-c", "import gpucnn, gpucnn_kernels, gpucnn_loops; print(gpucnn.__file__)"], tmp_path).strip()
    assert Path(found).is_relative_to(home)
    command = python.with_name("gpucnn")
    assert run([str(command), "--version"], tmp_path).split()[-1] == gpucnn.__version__
    printed = run([str(command), "train", "--dataset", "digits", "--epochs", "2", "--device", "cpu", "--output", "run"], tmp_path)
    assert re.search(r"^test accuracy \d+\.\d\d %$", printed, re.MULTILINE) and (tmp_path / "run" / "model.safetensors").is_file()
    missing = 'import sys; sys.modules["h5py"] = None\nfrom gpucnn.exchange import packages\npackages.h5py()'
    said = subprocess.run([str(python), "-c", missing], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert 'pip install "h5py>=3.11"' in said.stderr


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GPUCNN_REPOSITORY")}


def run(command: list[str], folder: Path) -> str:
    clean = environment()
    if "hatchling" in command and "PYTHONPATH" in os.environ:  # the builder may be there only
        clean["PYTHONPATH"] = os.environ["PYTHONPATH"]
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
