"""The documentation has a page for everything that is public, without anybody listing it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import gradprobe
from gradprobe.plots import PLOTS
from gradprobe.stats import STATISTICS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "pages.py"))


@pytest.fixture(scope="module")
def site(pages: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "generated"
    pages["write_all"](folder)
    return folder


def test_every_public_name_has_a_page_and_is_in_the_index(site: Path) -> None:
    names = [f"gradprobe.{name}" for name in gradprobe.__all__ if name not in ("stats", "plots")]
    names += [f"gradprobe.stats.{name}" for name in STATISTICS.names()]
    names += [f"gradprobe.plots.{name}" for name in PLOTS.names()]
    index = (site / "api" / "index.md").read_text(encoding="utf-8")
    for name in names:
        assert f":: {name}\n" in (site / "api" / f"{name}.md").read_text(encoding="utf-8")
        assert f"({name}.md)" in index
        assert f"\n{name}\n" in index, "it is in no table of contents"


def test_every_notebook_is_listed(pages: dict[str, Any], site: Path) -> None:
    contents = (site / "contents.txt").read_text(encoding="utf-8")
    assert pages["notebooks"]()
    for path in pages["notebooks"]():
        assert f"\ngenerated/notebooks/{path.stem}\n" in contents
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_a_page_whose_subject_is_gone_goes_too_and_others_are_left_as_they_are(
    pages: dict[str, Any], site: Path
) -> None:
    (site / "api" / "gradprobe.stats.gone.md").write_text("# gone\n", encoding="utf-8")
    kept = site / "methods.md"
    before = kept.stat().st_mtime_ns
    pages["write_all"](site)
    assert not (site / "api" / "gradprobe.stats.gone.md").exists()
    assert kept.stat().st_mtime_ns == before


def test_links_to_files_become_links_to_their_pages(pages: dict[str, Any]) -> None:
    linked, root = pages["with_links"], DOCS.parent
    at = root / "docs" / "generated"
    assert linked("[a](docs/speed.md#noise)", root, at) == "[a](../speed.md#noise)"
    assert linked("[a](README.md)", root, at) == "[a](../index.md)"
    assert linked("[a](gradprobe/stats)", root, at) == "a"
    assert (
        linked("![a](figures/layer_similarity.png)", root, at) == "![a](../../figures/layer_similarity.png)"
    )
    for text in ("[a](https://example.org/a.md)", "[a](#here)", "f[i](missing)"):
        assert linked(text, root, at) == text


def test_lengths_are_not_read_as_substitutions(pages: dict[str, Any]) -> None:
    lines = ["cos = <g, h>/(|g| |h|), not ``a | b``", ">>> a | b"]
    pages["with_bars"](lines)
    assert lines == ["cos = <g, h>/(∣g∣ ∣h∣), not ``a | b``", ">>> a | b"]
