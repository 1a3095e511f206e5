"""The notebooks are scripts in percent format that have a title, lead on to each other, and leave nothing behind.

They are run when the documentation is built (``make docs``), which stops at an error.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "analyses" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
CELL = re.compile(r"^# %%(?P<kind>.*)$", re.MULTILINE)
QUESTIONS = (
    "first_look",
    "bring_your_own_model",
    "write_your_own_estimator",
    "what_a_sign_costs",
    "trajectories",
    "choose_a_hybrid",
)


def cells(path: Path) -> list[tuple[str, str]]:
    """Kind ("markdown" or "code") and text of each cell."""
    before, *rest = CELL.split(path.read_text(encoding="utf-8"))
    assert not before, "what comes before the first cell would be lost"
    kinds = {"": "code", " [markdown]": "markdown"}
    return [(kinds[kind], text.strip()) for kind, text in zip(rest[::2], rest[1::2], strict=True)]


def test_there_is_one_for_each_question() -> None:
    assert [path.stem for path in NOTEBOOKS] == [f"{i:02}_{name}" for i, name in enumerate(QUESTIONS, 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_percent_format(path: Path) -> None:
    found = cells(path)
    for kind, text in found:
        if kind == "markdown":
            assert text
            assert all(line.startswith("# ") or line == "#" for line in text.splitlines())
        else:
            compile(text, path.name, "exec")
    assert {"markdown", "code"} == {kind for kind, _ in found}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_begins_with_a_title_and_a_question_and_says_how_large_it_is(path: Path) -> None:
    first, second, *_ = cells(path)
    assert re.match(r"# # \w.*\n#\n# \*\*Question\.\*\* ", first[1])
    assert second[0] == "code"
    assert {"COPIES", "SEEDS"} <= set(re.findall(r"^([A-Z]+) = ", second[1], re.MULTILINE))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_to_notebooks(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept_in_the_repository(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for written in re.findall(r"(?:out|save)=(?P<where>[^,)]+)", text):
        assert written.startswith(("FOLDER", '"runs/')), written
