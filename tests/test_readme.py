"""What the README and the guide say works."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from gradprobe.estimators.listing import markdown
from tests.pages import GUIDE, README, ROOT, STUDIES, Reader, blocks, commands

PAGES = [
    README,
    *GUIDE,
    *STUDIES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "docs" / "speed.md",
]
SHORTER = {
    "README": {"400": "40"},
    "reports": {"400": "40"},
    "command-line": {"400": "40", "beale": "beale --steps 50"},
    "decisions": {
        "400": "60",
        "200": "20",
        "4": "2",
        "0.9": "0.5",
        "bp,smoothed": "bp,smoothed --reference-copies 16",
    },
}
"""Fewer copies, steps and batches in the commands of a page."""
LESS = {
    "README": {"copies=400": "copies=40"},
    "decisions": {"cosine=0.9": "cosine=0.5"},
    "trajectories": {"steps=300": "steps=60"},
}
"""The same in its Python."""


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "guide" / "methods.md"], ids=lambda page: page.stem)
def test_the_table_of_methods_is_the_registry(page: Path) -> None:
    assert f"a test -->\n{markdown()}\n<!-- end" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [p for p in (README, *GUIDE) if blocks(p)], ids=lambda page: page.stem)
def test_what_a_page_says_works(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and every Python block, in order, and the files of runs that the text then names are there.

    Blocks for a cluster are run by the tests of Dask.
    """
    before = set(sys.modules)
    name = page.stem
    Reader(tmp_path, monkeypatch, SHORTER.get(name, {}), LESS.get(name, {}), page == README).follow(page)
    for file in re.findall(r"`(runs/[\w/]+\.\w+)`", page.read_text(encoding="utf-8")):
        assert Path(file).exists(), file
    for module in set(sys.modules) - before:
        if (
            getattr(sys.modules[module], "__file__", None)
            and tmp_path in Path(sys.modules[module].__file__).parents
        ):
            del sys.modules[module]


def test_the_readme_alone_leads_to_a_report_of_an_own_model() -> None:
    """Its commands name files that it writes, and end in the page that it says to open."""
    text = README.read_text(encoding="utf-8")
    lines = [words for language, code in blocks(README) if language == "sh" for words in commands(code)]
    probe = next(words for words in lines if words[:2] == ["gradprobe", "probe"])
    given = dict(zip(probe[2::2], probe[3::2], strict=True))
    file, factory = given["--model"].split(":")
    assert f"# {file}\n" in text
    assert f"def {factory}(" in text
    assert f'torch.save(model.state_dict(), "{given["--checkpoint"]}")' in text
    assert f'np.savez("{given["--data"]}"' in text
    assert ["gradprobe", "report", given["--out"], "--html"] in lines
    assert f"{given['--out']}/report/report.html" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_pictures_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", text):
        assert (page.parent / link.split("#")[0]).exists(), link
    for file in re.findall(r"[` ]((?:figures|analyses|docs|tests|gradprobe)/[\w./-]+\.\w+)\b", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_extras_exist(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"gradprobe\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
        assert set(names.split(",")) <= set(extras), names
