"""Python files of the user as modules of this package: ``gradprobe.problems.files.<path in hexadecimal>``.

A name that says where the file is can be imported by every process that sees the file, so that a model from it
can be sent to workers; and no file hides a module of the same name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from gradprobe.core.optional import USER_FOLDERS

__path__: list[str] = []
"""Makes this module a package, whose modules the finder below finds."""


def module_name(file: Path) -> str:
    """Name under which a file is imported."""
    return f"{__name__}.{str(file.resolve()).encode().hex()}"


@contextmanager
def searched(folder: Path) -> Iterator[None]:
    """Search a folder for modules: first inside, as ``python -m`` does; last afterwards.

    Last, because what is imported later (by gradprobe, or by a library) must not meet a ``datasets.py`` there.
    """
    place = str(folder)
    known = place in sys.path
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        if not known and place not in sys.path:
            sys.path.append(place)
            USER_FOLDERS.append(place)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        start, _, name = fullname.rpartition(".")
        if start != __name__:
            return None
        try:
            file = Path(bytes.fromhex(name).decode())
        except ValueError:
            return None
        if not file.is_file():
            return None
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file)))


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with searched(Path(self.path).parent):
            super().exec_module(module)


sys.meta_path.append(_Finder())
