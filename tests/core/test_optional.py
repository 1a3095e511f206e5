"""Libraries that may be absent: the module if it is there, one sentence if it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradprobe.core.errors import UsageError
from gradprobe.core.optional import needs


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
