"""Named things of one kind, found in the files of one folder.

A registry knows the names and one-liners of its folder without importing the files: it reads the literal
arguments of their ``@register(...)`` decorators. The file itself (and torch with it) is imported when
something is used. Adding a thing is therefore adding a file.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gradprobe.core.errors import UsageError, unknown

Item = TypeVar("Item")
_MISSING = object()


@dataclass
class Entry:
    """One registered name.

    Attributes:
        name: What the user writes.
        summary: One line that says what it is.
        meta: Further literal facts given to the decorator (colour, target, source, ...).
        module: Import path of the file that implements it.
        item: The implementation, once its file was imported.
    """

    name: str
    summary: str
    meta: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    item: Any = _MISSING
    loader: Callable[[], Any] | None = None


class Registry:
    """Names of one kind of thing, their one-liners, and (on use) their implementations.

    Args:
        kind: What the things are called in messages ("estimator").
        package: Import path of the folder whose files are searched.
        entry_points: Group of entry points through which other distributions add things.
    """

    def __init__(self, kind: str, package: str, entry_points: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self.entry_points = entry_points
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(self, name: str, *, summary: str, **meta: Any) -> Callable[[Item], Item]:
        """Decorator that registers a class or function under a name.

        Args:
            name: What the user will write; must not be taken by something else.
            summary: One line that says what it is.
            **meta: Further facts; ``order`` says where it stands among the others. Inside gradprobe's own files
                they must be literals, because they are read without importing the file.

        Returns:
            The decorator; it returns what it decorates unchanged.

        Raises:
            UsageError: The name is taken by something else.
        """

        def add(item: Item) -> Item:
            self._discover()
            module = getattr(item, "__module__", "")
            old = self._entries.get(name)
            again = old is not None and old.module == module
            if old is not None and not again:
                raise UsageError(
                    f"the {self.kind} name {name!r} is already taken by {old.module or 'another package'}; "
                    "register yours under another name."
                )
            if again and old is not None and old.item is not _MISSING and not _same_source(old.item, item):
                raise UsageError(f"{module} registers the {self.kind} name {name!r} twice.")
            self._entries[name] = Entry(name, summary, dict(meta), module, item)
            return item

        return add

    def names(self) -> list[str]:
        """All registered names: those with ``order=`` in that order, then this folder's, then others."""
        return [entry.name for entry in self]

    def entry(self, name: str) -> Entry:
        """The entry of a name, without importing its implementation.

        Raises:
            UsageError: There is no such name.
        """
        self._discover()
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> Any:
        """The implementation of a name; its file is imported now if it was not.

        Raises:
            UsageError: There is no such name.
        """
        entry = self.entry(name)
        if entry.item is _MISSING:
            if entry.loader is not None:
                entry.item = entry.loader()
            else:
                importlib.import_module(entry.module)
                entry = self._entries[name]
        return entry.item

    def written(self) -> str:
        """How things of this kind are written, in a row: each name's ``written``, else ``name:NAME``."""
        ways = [str(entry.meta.get("written", f"{entry.name}:NAME")) for entry in self]
        return " or ".join(filter(None, [", ".join(ways[:-1]), *ways[-1:]]))

    def __iter__(self) -> Iterator[Entry]:
        self._discover()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.meta.get("order", math.inf)))

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob("*.py")):
                if not path.stem.startswith("_"):
                    self._read(path, f"{self.package}.{path.stem}")
        if self.entry_points:
            for point in importlib.metadata.entry_points(group=self.entry_points):
                if point.name in self._entries:
                    raise UsageError(
                        f"the {self.kind} name {point.name!r} of the package that provides {point.value} is "
                        "taken; uninstall that package or have it use another name."
                    )
                summary = f"from {point.value}"
                self._entries[point.name] = Entry(point.name, summary, module=point.module, loader=point.load)

    def _read(self, path: Path, module: str) -> None:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and _called(call) in ("register", "register_estimator"):
                    name = ast.literal_eval(call.args[0])
                    meta = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
                    if name in self._entries:
                        raise UsageError(
                            f"{module} registers the {self.kind} name {name!r}, which "
                            f"{self._entries[name].module} has already."
                        )
                    self._entries[name] = Entry(name, meta.pop("summary"), meta, module)


def _called(call: ast.Call) -> str:
    """Last part of what is called: ``register``, or ``register_estimator`` of ``gp.register_estimator``."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _same_source(old: Any, new: Any) -> bool:
    """Whether one is the other written again, as when a notebook cell is run twice."""
    return getattr(old, "__qualname__", old) == getattr(new, "__qualname__", new)
