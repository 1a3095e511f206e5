"""The map of the house, the figure of the data flow and the citation say what is there."""

from __future__ import annotations

import ast
import importlib
import json
import re
import runpy
import tomllib

import pytest
import yaml

from gradprobe.core.registry import Registry
from tests.commands import command
from tests.pages import ROOT
from tests.test_architecture import LEVELS

PACKAGE = ROOT / "gradprobe"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def first_line(unit: str) -> str:
    """What a unit says that it is, without its level."""
    folder = PACKAGE / unit / "__init__.py"
    file = folder if folder.exists() else PACKAGE / f"{unit}.py"
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.sub(r"^Level \d[^:]*: ", "", said.splitlines()[0]).replace("``", "`")


def levels() -> str:
    lines = ["| level | unit | what it is |", "|---|---|---|"]
    for unit, level in sorted(LEVELS.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {level} | `{unit}` | {first_line(unit)} |")
    return "\n".join(lines)


def test_the_table_of_levels_is_the_code() -> None:
    assert f"a test -->\n{levels()}\n<!-- end of levels" in TEXT, levels()


def registries() -> list[Registry]:
    """All of gradprobe's."""
    found = {}
    for file in sorted(PACKAGE.rglob("__init__.py")):
        if "Registry(" in file.read_text(encoding="utf-8"):
            unit = importlib.import_module(".".join(file.parent.relative_to(ROOT).parts))
            found |= {value.package: value for value in vars(unit).values() if isinstance(value, Registry)}
    return [found[package] for package in sorted(found)]


@pytest.mark.parametrize("registry", registries(), ids=lambda registry: registry.package)
def test_every_folder_of_a_registry_is_in_the_table_of_files(registry: Registry) -> None:
    assert f"`{registry.package.replace('.', '/')}/`" in TEXT


def test_everything_that_is_registered_is_listed() -> None:
    """As the table of files says: by kind and name."""
    rows = [" ".join(line.split()) for line in command("list").stdout.splitlines()]
    for registry in registries():
        for name in registry.names():
            assert any(row.startswith(f"{registry.kind} {name} ") for row in rows), (registry.kind, name)


def test_the_figure_of_the_data_flow_names_what_is_there() -> None:
    """And the one that is kept is the one that the script draws."""
    steps = runpy.run_path(str(ROOT / "analyses" / "data_flow.py"))["STEPS"]
    for step in steps:
        for name in step.folder.split(", "):
            assert (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists(), name
    kept = json.loads((ROOT / "figures" / "data_flow.json").read_text(encoding="utf-8"))
    assert [step["folder"] for step in kept["steps"]] == [step.folder for step in steps]
    assert [step["hands on"] for step in kept["steps"]] == [step.hands for step in steps]


def test_the_citation_is_of_this_version_and_of_the_papers() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= set(cited)
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    for paper in cited["references"]:
        names = ", ".join(author["family-names"] for author in paper["authors"])
        assert names in readme
        assert paper["identifiers"][0]["value"].replace("arXiv:", "arXiv ") in readme


def test_the_changelog_knows_this_version() -> None:
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
