"""``package.module:name`` and ``path/file.py:name``: what a user's own Python defines."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gradprobe.core.errors import UsageError, unknown
from gradprobe.problems.files import module_name, searched


def one_line(error: BaseException) -> str:
    """``Type: message`` of an error, on one line and without the full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def split_place(text: str) -> tuple[str, str]:
    """Where and what: ``"C:/a/net.py:Net"`` -> ("C:/a/net.py", "Net"); "" where one of them is missing."""
    place, _, name = text.rpartition(":")
    if len(place) == 1 and name[:1] in ("/", "\\"):  # the colon of a drive
        return text, ""
    return (place, name) if place or ":" in text else (text, "")


def is_python_file(place: str) -> bool:
    """Whether a place is written as a file, not as a module."""
    return place.endswith((".py", ".pyw", ".ipynb")) or "/" in place or "\\" in place


def find_object(text: str, kind: str) -> Any:
    """What ``place:name`` names; its module is imported, which runs it.

    Args:
        text: ``package.module:name`` (searched as ``python -m`` does: the current directory first) or
            ``path/file.py:name``; the name may have dots (``Net.small``).
        kind: What is looked for ("model", "data"), for messages.

    Raises:
        UsageError: There is no such file, module or name, or the module raised something.
    """
    place, name = split_place(text)
    if not place or not name:
        raise _incomplete(text, place, kind)
    module = (
        import_file(Path(place).expanduser(), kind) if is_python_file(place) else import_module(place, kind)
    )
    found: Any = module
    for part in name.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise unknown(f"name in {place}", part, _public(found, module))
        found = getattr(found, part)
    return found


def import_module(name: str, kind: str) -> ModuleType:
    """Import a module by name, the current directory first.

    Raises:
        UsageError: There is none, or it raised something.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{kind}: {name!r} is no name of a module; write package.module:name or path/file.py:name."
        )
    try:
        with searched(Path.cwd()):
            importlib.invalidate_caches()
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{name}.".startswith(f"{absent}."):
            raise UsageError(
                f"{kind}: there is no module {name!r} (searched in the current directory and among what is "
                f"installed in {sys.prefix}); go to the directory that it is in, or write path/file.py:name."
            ) from error
        raise _failed(kind, f"module {name!r}", error) from error


def import_file(file: Path, kind: str) -> ModuleType:
    """Import a Python file; its folder is searched for what it imports.

    Raises:
        UsageError: There is no such file, it is no Python, or it raised something.
    """
    if not file.is_file():
        near = file.with_name(f"{file.name}.py")
        there = sorted(p.name for p in file.parent.glob("*.py"))[:10] if file.parent.is_dir() else []
        hint = f"did you mean {near}?" if near.is_file() else ""
        hint = hint or (f"there are {', '.join(there)}." if there else "give the path of a Python file.")
        raise UsageError(f"{kind}: there is no file {str(file)!r}; {hint}")
    if file.suffix not in (".py", ".pyw"):
        raise UsageError(f"{kind}: {str(file)!r} is no Python file; write path/file.py:name.")
    try:
        ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        at = f" (line {line})" if line else ""
        raise UsageError(
            f"{kind}: {str(file)!r} cannot be read as Python{at}: {getattr(error, 'msg', error)}."
        ) from error
    try:
        return importlib.import_module(module_name(file))
    except (Exception, SystemExit) as error:
        raise _failed(kind, f"file {str(file)!r}", error) from error


def _failed(kind: str, what: str, error: BaseException) -> UsageError:
    """The error for a module that was found and raised something."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return UsageError(
            f"{kind}: {what} needs {error.name!r}, which is not installed; install it, or start in the directory "
            "that it is in."
        )
    if isinstance(error, SystemExit):
        return UsageError(
            f"{kind}: {what} ends the program when it is imported; put what runs it under "
            'if __name__ == "__main__".'
        )
    return UsageError(f"{kind}: {what} was found but raised {one_line(error)}.")


def _incomplete(text: str, place: str, kind: str) -> UsageError:
    """The error for a place without a name; a file's own names are read, not run."""
    file = Path(place).expanduser()
    names: list[str] = []
    if place.endswith(".py") and file.is_file():
        try:
            body = ast.parse(file.read_bytes()).body
        except (SyntaxError, ValueError):
            body = []
        names = [n.name for n in body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name[0] != "_"]
    hint = f"; {file.name} defines {', '.join(names[:20])}" if names else ""
    start = place.rstrip(":") or "package.module"
    return UsageError(f"{kind} {text!r} lacks a name; write {start}:{names[0] if names else 'name'}{hint}.")


def _public(found: Any, module: ModuleType) -> list[str]:
    """Public callables, those that the module defines itself first."""
    names = [n for n in dir(found) if n[0] != "_" and callable(getattr(found, n, None))]
    own = [
        n for n in names if getattr(inspect.unwrap(getattr(found, n)), "__module__", "") == module.__name__
    ]
    return own or names
