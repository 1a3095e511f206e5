"""Pages that are made when the documentation is built: from registries, docstrings and the files of the repository.

They go to ``docs/generated``, which is not committed. A file is only written where it changed, so that Sphinx reads
again what is new.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import gradprobe
from gradprobe.core.registry import Registry
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.listing import TARGETS, markdown
from gradprobe.plots import PLOTS
from gradprobe.stats import STATISTICS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "analyses" / "notebooks"
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "generated/contributing.md",
    "CHANGELOG.md": "generated/changelog.md",
}
"""Files of the repository -> the page that holds them or stands for them; they may be missing."""

EXAMPLE_RUN = DOCS / "example_run.py"
WHERE_FROM = f"""In the examples `problem` is the shipped, trained ResNet-5 with a batch of 8 digits, `ds` a small run
of it, and `folder` an empty folder:

```python
{EXAMPLE_RUN.read_text(encoding="utf-8").strip()}
```

A test runs every example on this run. It is small so that this is fast: hundreds of copies say more.
"""
BAR = "\N{DIVIDES}"

FORMATS = ("gradprobe.store.schema", "gradprobe.store.batches", "gradprobe.store.paths")
"""Modules whose docstrings say what results hold."""


CONTENTS = {
    "Guide": ("guide/*.md",),
    "Notebooks": ("generated/notebooks/*.py",),
    "Studies": ("studies/*.md",),
    "Reference": ("generated/api/index.md", "generated/methods.md", "generated/formats.md"),
    "More": ("*.md", "generated/contributing.md", "generated/changelog.md"),
}
"""Part of the contents -> its pages, in order, as patterns below ``docs``; a part without pages is left out."""


def version() -> str:
    """The version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def write_all(folder: Path) -> None:
    """Write every generated page, and remove those whose subject is gone.

    Args:
        folder: Where to; nothing else may be in it.
    """
    made = {
        **_api(),
        "methods.md": _methods(),
        "formats.md": _formats(),
        **{f"notebooks/{path.name}": path.read_text(encoding="utf-8") for path in notebooks()},
        **_texts(folder),
    }
    made["contents.txt"] = _contents(folder.parent, [f"{folder.name}/{name}" for name in made])
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in made:
            path.unlink()


def notebooks() -> list[Path]:
    """The notebooks, in order."""
    return sorted(NOTEBOOKS.glob("*.py"))


def _texts(folder: Path) -> dict[str, str]:
    """Files of the repository that are pages of ``folder``."""
    made = {Path(page).name: ROOT / name for name, page in PAGES.items() if page.startswith(folder.name)}
    return {
        page: with_links(path.read_text(encoding="utf-8"), ROOT, folder)
        for page, path in made.items()
        if path.exists()
    }


def public_names() -> list[str]:
    """What ``gradprobe`` itself offers: functions and classes."""
    return [name for name in gradprobe.__all__ if name not in ("stats", "plots")]


def with_bars(lines: list[str]) -> None:
    """Have lengths such as ``|g|`` read as text, not as a substitution; in place, and not in code or examples.

    The sign for it has the same width, so that tables stay in shape.
    """
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = line.split("``")
            lines[i] = "``".join(p if k % 2 else p.replace("|", BAR) for k, p in enumerate(parts))


def _contents(docs: Path, made: list[str]) -> str:
    """The contents of all pages, for the index to include."""
    written = [
        p.relative_to(docs).as_posix()
        for folder in (".", "guide", "studies")
        for p in docs.glob(f"{folder}/*.md")
    ]
    known = sorted({*written, *made} - {"index.md"})
    parts = []
    for title, patterns in CONTENTS.items():
        found = [name for pattern in patterns for name in known if _fits(name, pattern)]
        if found:
            names = [name.rpartition(".")[0] for name in found]
            parts.append("\n".join(["```{toctree}", f":caption: {title}", ":maxdepth: 1", "", *names, "```"]))
    return "\n\n".join(parts) + "\n"


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)


def _api() -> dict[str, str]:
    """The index of the API, and one page for each public name."""
    groups = [
        ("Functions and classes", "gradprobe", [(name, _first_line(name)) for name in public_names()]),
        ("Statistics", "gradprobe.stats", _summaries(STATISTICS)),
        ("Figures", "gradprobe.plots", _summaries(PLOTS)),
    ]
    parts = [
        "# API",
        "Bad arguments raise `gradprobe.UsageError`: one sentence that names the way out.",
        WHERE_FROM,
    ]
    made = {}
    for title, module, rows in groups:
        names = [f"{module}.{name}" for name, _ in rows]
        for name in names:
            made[f"api/{name}.md"] = _page(name)
        parts += [f"## {title}", _table(("name", "what it is"), [(_link(module, n), s) for n, s in rows])]
        parts.append(_toctree(names))
    parts += ["## What results hold", "Variables, dimensions and facts: [](../formats.md)."]
    return {**made, "api/index.md": "\n\n".join(parts) + "\n"}


def _summaries(registry: Registry) -> list[tuple[str, str]]:
    return sorted((entry.name, entry.summary) for entry in registry)


def _first_line(name: str) -> str:
    first = (getattr(gradprobe, name).__doc__ or "").partition("\n")[0]
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first)


def _link(module: str, name: str) -> str:
    return f"[`{module.replace('gradprobe', 'gp')}.{name}`]({module}.{name}.md)"


def _page(name: str) -> str:
    """The page of one public thing."""
    module, _, own = name.rpartition(".")
    thing = getattr(import_module(module), own)
    kind = "autofunction"
    if isinstance(thing, type):
        kind = "autoexception" if issubclass(thing, Exception) else "autoclass"
    options = ["   :members:"] if kind == "autoclass" else []
    return _rst(f"# {name.removeprefix('gradprobe.')}", [f".. {kind}:: {name}", *options])


def _methods() -> str:
    """The table of methods, and what each of them is."""
    parts = [
        "# Methods, one by one",
        "Every registered estimator. Options go into brackets, as in `lr(noise=rademacher, sigma=0.1)`.",
        markdown(),
    ]
    for entry in ESTIMATORS:
        found = ESTIMATORS.get(entry.name)
        parts.append(
            _rst(f"## {entry.name}", [f".. autoclass:: {found.__module__}.{found.__qualname__}"]).strip()
        )
        target = entry.meta.get("target", "")
        parts.append(f"Its mean is {TARGETS.get(target, target)}.")
        parts += [f"{key.title()}: {entry.meta[key]}." for key in ("formula", "source") if key in entry.meta]
    return "\n\n".join(parts) + "\n"


def _formats() -> str:
    """What a run, runs of several batches, and a path hold: the docstrings of the modules that say so."""
    parts = ["# What results hold"]
    for module in FORMATS:
        first, _, rest = (import_module(module).__doc__ or "").partition("\n")
        lines = rest.splitlines()
        with_bars(lines)
        parts.append(_rst(f"## {first.rstrip('.')}", [f".. py:module:: {module}", "", *lines]))
    return "\n\n".join(parts)


def with_links(text: str, beside: Path, folder: Path) -> str:
    """Text with links to files of the repository as links of a page: to the page of that file, if there is one.

    Args:
        text: Markdown.
        beside: The folder that its links start from.
        folder: The folder of the page.
    """

    def moved(found: re.Match[str]) -> str:
        target, mark, anchor = found[2].partition("#")
        path = (beside / target).resolve()
        if not target or not path.exists():
            return found[0]
        if path.is_dir():
            return found[1]
        page = DOCS / PAGES[path.name] if path.parent == ROOT and path.name in PAGES else path
        return f"[{found[1]}]({os.path.relpath(page, folder)}{mark}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", moved, text)


def _rst(title: str, lines: Iterable[str]) -> str:
    """A heading and reStructuredText, which is what docstrings are written in."""
    return "\n".join([title, "", "```{eval-rst}", *lines, "```", ""])


def _table(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *rows]
    return "\n".join(f"| {a} | {b.replace('|', chr(92) + '|')} |" for a, b in lines)


def _toctree(names: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
