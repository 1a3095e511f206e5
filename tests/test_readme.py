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


PYTHON = dict(
    zip(("example", "workers", "decisions", "trajectories", "new method"), blocks("python"), strict=True)
)
COMMANDS = [block for block in blocks("sh") if block.startswith("gradprobe")]


def run_python(code: str) -> None:
    exec(compile(code, "README", "exec"), {"__name__": "readme"})  # the README's own code


@pytest.mark.parametrize("name", [name for name in PYTHON if name != "decisions"])
def test_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(PYTHON[name])


def run_commands(lines: str, shorter: dict[str, str]) -> None:
    """The first in a process of its own, as a user's is."""
    for number, line in enumerate(lines.splitlines()):
        words = shlex.split(line, comments=True)
        words = [shorter.get(word, word) for word in words]
        done = (command if number else process)(*words[1:])
        assert done.returncode == 0, done.stderr


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_commands(COMMANDS[0], {"400": "40"})


def test_decisions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands, then the code on the run that they made."""
    monkeypatch.chdir(tmp_path)
    run_commands(COMMANDS[1], {"400": "60", "200": "20", "4": "2", "0.9": "0.5"})
    run_python(PYTHON["decisions"].replace("cosine=0.9", "cosine=0.5"))


def test_pictures_and_files_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (ROOT / path).exists(), path
