"""What the README says works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gradprobe.estimators.listing import markdown

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


def test_commands_run(tmp_path: Path) -> None:
    (commands,) = [b for b in blocks("sh") if b.startswith("gradprobe")]
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        words = ["40" if w == "400" else w for w in words]
        code = "from gradprobe.cli import main; main()"
        run = [sys.executable, "-c", code, *words[1:]]
        done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr


def test_pictures_and_files_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (ROOT / path).exists(), path
