from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from gradprobe.core.errors import UsageError
from gradprobe.core.registry import Registry

FILE = """
from {package} import register
raised = {raises}
if raised:
    raise RuntimeError("imported")
@register("{name}", summary="one line", color="#123456")
def thing():
    return "{name}"
"""


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[Path, str]:
    package = f"things_{abs(hash(request.node.name))}"
    (tmp_path / package).mkdir()
    code = "from gradprobe.core.registry import Registry\nR = Registry('thing', __name__)\nregister = R.register\n"
    (tmp_path / package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / package, package
    for name in [n for n in sys.modules if n.startswith(package)]:
        del sys.modules[name]


def add(folder: tuple[Path, str], name: str, file: str, raises: bool = False) -> None:
    (folder[0] / f"{file}.py").write_text(FILE.format(package=folder[1], name=name, raises=raises))


def registry(folder: tuple[Path, str]) -> Registry:
    return importlib.import_module(folder[1]).R


def test_a_new_file_is_found_without_being_imported(folder: tuple[Path, str]) -> None:
    add(folder, "new", "file", raises=True)
    found = registry(folder)
    assert found.names() == ["new"]
    assert found.entry("new").summary == "one line"
    assert found.entry("new").meta == {"color": "#123456"}
    with pytest.raises(RuntimeError, match="imported"):
        found.get("new")


def test_use_imports_the_file(folder: tuple[Path, str]) -> None:
    add(folder, "new", "file")
    assert registry(folder).get("new")() == "new"


def test_two_files_with_one_name_are_refused(folder: tuple[Path, str]) -> None:
    add(folder, "same", "one")
    add(folder, "same", "two")
    with pytest.raises(UsageError, match="'same'"):
        registry(folder).names()


def test_a_user_may_add_and_write_again_but_not_take(folder: tuple[Path, str]) -> None:
    add(folder, "theirs", "file")
    found = registry(folder)

    def make() -> None:
        @found.register("mine", summary="x")
        def mine() -> int:
            return 1

    make()
    make()  # the same definition again, as in a notebook
    assert found.get("mine")() == 1
    with pytest.raises(UsageError, match="already taken"):
        found.register("theirs", summary="x")(make)
    with pytest.raises(UsageError, match="twice"):
        found.register("mine", summary="x")(make)


def test_unknown_name(folder: tuple[Path, str]) -> None:
    add(folder, "alpha", "file")
    with pytest.raises(UsageError, match="Did you mean 'alpha'"):
        registry(folder).get("alpa")


def test_entry_points_are_read(folder: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("theirs", "collections:OrderedDict", "gradprobe.things")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    found = Registry("thing", folder[1], entry_points="gradprobe.things")
    assert "theirs" in found
    from collections import OrderedDict

    assert found.get("theirs") is OrderedDict


def test_the_public_decorator_is_found_too(folder: tuple[Path, str]) -> None:
    text = 'import x as gp\n@gp.register_estimator("public", summary="s")\nclass A: pass\n'
    (folder[0] / "file.py").write_text(text)
    assert registry(folder).names() == ["public"]
