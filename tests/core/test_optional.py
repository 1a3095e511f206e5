"""Libraries that may be absent: the module if it is there, one sentence if it is not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradprobe.core.errors import UsageError
from gradprobe.core.optional import USER_FOLDERS, needs
from gradprobe.problems.files import searched


def refused(module: str) -> str:
    with pytest.raises(UsageError) as caught:
        needs(module, extra="gnn", what="model 'gat'")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_module_itself_is_returned():
    import os.path

    assert needs("os.path", extra="gnn", what="model 'gat'") is os.path


@pytest.mark.parametrize("module", ["no_such_library", "no_such_library.nn"])
def test_absent_library_is_named_with_the_command_that_installs_it(module):
    assert refused(module) == "model 'gat' needs no_such_library: pip install \"gradprobe[gnn]\"."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("raise OSError('libX.so:\\n cannot open')", "libX.so: cannot open"),
        ("raise ImportError", "ImportError"),
    ],
)
def test_broken_library_is_told_from_an_absent_one(text, reason, tmp_path: Path, monkeypatch):
    (tmp_path / "broken_library.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    message = refused("broken_library")
    assert f"installed but cannot be imported ({reason})" in message
    assert "broken_library" not in sys.modules


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the user's that has the name of a library, in a folder that was searched for another one."""
    (tmp_path / "lent_name.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    with searched(tmp_path):
        pass
    assert sys.path[-1] == str(tmp_path)
    yield tmp_path
    sys.modules.pop("lent_name", None)
    USER_FOLDERS.remove(str(tmp_path))


def test_a_library_is_not_taken_from_the_users_folder(own: Path) -> None:
    before = list(sys.path)
    assert refused("lent_name") == "model 'gat' needs lent_name: pip install \"gradprobe[gnn]\"."
    assert not (own / "ran").exists()
    assert sys.path == before


def test_a_module_of_the_user_that_is_there_already_is_named(own: Path) -> None:
    importlib.import_module("lent_name")
    assert f"{str(own / 'lent_name.py')!r} was imported by that name" in refused("lent_name")
