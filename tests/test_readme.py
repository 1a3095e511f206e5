"""What the README says works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gradprobe.estimators.listing import markdown
from tests.commands import command, process

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_table_of_methods_is_the_registry() -> None:
    assert f"a test -->\n{markdown()}\n<!-- end" in TEXT


@pytest.mark.parametrize("code", blocks("python"), ids=["example", "workers", "trajectories", "new method"])
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README", "exec"), {"__name__": "readme"})  # the README's own code


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in a process of its own, as a user's is."""
    monkeypatch.chdir(tmp_path)
    (commands,) = [b for b in blocks("sh") if b.startswith("gradprobe")]
    for number, line in enumerate(commands.splitlines()):
        words = shlex.split(line, comments=True)
        words = ["40" if w == "400" else w for w in words]
        done = (command if number else process)(*words[1:])
        assert done.returncode == 0, done.stderr


def test_pictures_and_files_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (ROOT / path).exists(), path
