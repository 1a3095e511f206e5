"""The examples in docstrings show what they say they show, on the run that the documentation names."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradprobe"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def examples() -> Iterator[doctest.DocTest]:
    """One for each docstring with an example, decorated or not; the modules are not imported for it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>>" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            found = (ast.get_docstring(node) or "") if isinstance(node, DOCUMENTED) else ""
            if ">>>" in found:
                name = f"{path.relative_to(PACKAGE).with_suffix('')}:{getattr(node, 'name', '')}"
                yield doctest.DocTestParser().get_doctest(found, {}, name, str(path), 0)


class UpToRounding(doctest.OutputChecker):
    """Numbers may differ by one in their last place, and those from 100 on by 1 %; machines round differently."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        between = [" ".join(NUMBER.sub("#", text).split()) for text in (want, got)]
        pairs = zip(NUMBER.findall(want), NUMBER.findall(got), strict=False)
        return between[0] == between[1] and all(alike(a, b) for a, b in pairs)


def alike(want: str, got: str) -> bool:
    places = len(want.partition(".")[2])
    room = 1.01 * 10**-places if places else 0.01 * abs(float(want)) * (abs(float(want)) >= 100)
    return abs(float(want) - float(got)) <= room


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """Names that every example knows, as the documentation says."""
    with torch.random.fork_rng(devices=[]):
        return runpy.run_path(str(ROOT / "docs" / "example_run.py")) | {"torch": torch}


@pytest.mark.parametrize("test", list(examples()), ids=lambda test: test.name)
def test_examples_show_what_they_say(test: doctest.DocTest, shared: dict[str, Any], tmp_path: Path) -> None:
    test.globs = shared | {"folder": tmp_path}
    runner = doctest.DocTestRunner(UpToRounding())
    said: list[str] = []
    with torch.random.fork_rng(devices=[]):
        failed, tried = runner.run(test, out=said.append)
    assert tried
    assert not failed, "".join(said)


def test_a_number_that_differs_is_noticed() -> None:
    same = UpToRounding().check_output
    assert same("a 0.25 b\n", "a  0.26 b\n", 0)
    assert not same("a 0.25 b\n", "a 0.27 b\n", 0)
    assert not same("a 0.25 b\n", "a 0.25 c\n", 0)
    assert not same("[10, 20]\n", "[10, 21]\n", 0)
    assert not same("['lr', 1]\n", "['es', 1]\n", 0)


def test_the_functions_that_most_readers_look_up_have_examples() -> None:
    found = {test.name.rpartition(":")[2] for test in examples()}
    main = "Problem probe estimate doctor plan verdict cosine accuracy stability bands alignment predict decompose "
    main += "compare cost frontier similarity descend field export open_run"
    assert set(main.split()) <= found
