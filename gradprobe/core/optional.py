"""Libraries that only some users need: imported when they are used, with a way out where they are absent."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from gradprobe.core.errors import UsageError

USER_FOLDERS: list[str] = []
"""Folders at the end of ``sys.path`` only for what the user's own modules import: no library is taken from them."""


def needs(module: str, *, extra: str, what: str) -> ModuleType:
    """Import a library that is not among the package's own requirements.

    Args:
        module: Its import path, such as ``"torch_geometric.nn"``.
        extra: The extra of gradprobe that installs it.
        what: What needs it, for the message: ``"model 'gat'"``.

    Returns:
        The module.

    Raises:
        UsageError: It is not installed, it is a file of the user's by the same name, or it cannot be imported.
    """
    library = module.partition(".")[0]
    try:
        with _installed_only():
            found = importlib.import_module(library)
            if (place := _of_the_user(found)) is not None:
                raise _foreign(what, library, extra, place)
            return importlib.import_module(module)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        if error.name == library:
            raise UsageError(f'{what} needs {library}: pip install "gradprobe[{extra}]".') from error
        raise UsageError(_broken(what, library, error)) from error
    except Exception as error:
        raise UsageError(_broken(what, library, error)) from error


def _broken(what: str, library: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{what} needs {library}, which is installed but cannot be imported ({reason}); install it again."


@contextmanager
def _installed_only() -> Iterator[None]:
    """Without the user's folders on the path; they are put back behind it."""
    before = list(sys.path)
    sys.path[:] = [p for p in sys.path if p not in USER_FOLDERS]
    try:
        yield
    finally:
        sys.path[:] = before + [p for p in sys.path if p not in before]


def _of_the_user(library: ModuleType) -> str | None:
    """Where a module lies, if right in one of the user's folders; a library installed below one is none."""
    file = getattr(library, "__file__", None)
    places = [Path(file)] if file else [Path(p) / "" for p in getattr(library, "__path__", ())]
    for place in places:
        top = place.parent if place.name == "__init__.py" else place
        if str(top.parent) in USER_FOLDERS:
            return str(place)
    return None


def _foreign(what: str, library: str, extra: str, place: str) -> UsageError:
    return UsageError(
        f"{what} needs the library {library}, but {place!r} was imported by that name; call yours something else "
        f'and run: pip install "gradprobe[{extra}]".'
    )
