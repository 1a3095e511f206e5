"""Pages of text for tests: their blocks of code, and a reader who does what they say."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from tests.commands import command, process

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
STUDIES = sorted((ROOT / "docs" / "studies").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FILE = re.compile(r"# (\w+\.py)\b")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and code of each block, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command of a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


class Reader:
    """Does what a page says, in an empty folder and in this process.

    Args:
        folder: The folder; the current one, and where files of the page's Python are written.
        shorter: Words of commands, and what is put in their place (several words with blanks between them).
        less: Texts in Python blocks, and what is put in their place.
        alone: Whether the first ``gradprobe`` command gets a process of its own, as a user's has.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        shorter: Mapping[str, str],
        less: Mapping[str, str],
        alone: bool,
    ) -> None:
        self.folder, self.shorter, self.less, self.alone = folder, shorter, less, alone
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)

    def follow(self, page: Path) -> None:
        """Do all blocks of a page, in order."""
        done = {"python": self.python, "sh": self.shell}
        for language, code in blocks(page):
            done[language](code)

    def python(self, code: str) -> None:
        """Write a block that begins with the name of a file; run any other."""
        for text, other in self.less.items():
            code = code.replace(text, other)
        if named := FILE.match(code):
            (self.folder / named[1]).write_text(code, encoding="utf-8")
            return
        with torch.random.fork_rng(devices=[]):
            exec(compile(code, "page", "exec"), {"__name__": "page"})  # the page's own code

    def shell(self, code: str) -> None:
        """Do the commands of a block; one that no test knows fails."""
        for words in commands(code):
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE), words
            elif words[0] == ".":
                assert words[1] == f"{re.search(r'^VENV := (.*)', MAKEFILE, re.MULTILINE)[1]}/bin/activate"
            elif words[0] == "python":
                with torch.random.fork_rng(devices=[]):
                    runpy.run_path(words[1], run_name="__main__")
            else:
                assert words[0] == "gradprobe", words
                self.gradprobe([new for word in words[1:] for new in self.shortened(word)])

    def shortened(self, word: str) -> list[str]:
        return self.shorter[word].split() if word in self.shorter else [word]

    def gradprobe(self, words: list[str]) -> None:
        run, self.alone = process if self.alone else command, False
        done = run(*words)
        assert done.returncode == 0, done.stderr
