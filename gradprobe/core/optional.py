"""Libraries that only some users need: imported when they are used, with a way out where they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from gradprobe.core.errors import UsageError


def needs(module: str, *, extra: str, what: str) -> ModuleType:
    """Import a library that is not among the package's own requirements.

    Args:
        module: Its import path, such as ``"torch_geometric.nn"``.
        extra: The extra of gradprobe that installs it.
        what: What needs it, for the message: ``"model 'gat'"``.

    Returns:
        The module.

    Raises:
        UsageError: It is not installed, or it is and cannot be imported.
    """
    library = module.partition(".")[0]
    try:
        importlib.import_module(library)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == library:
            raise UsageError(f'{what} needs {library}: pip install "gradprobe[{extra}]".') from error
        raise UsageError(_broken(what, library, error)) from error
    except Exception as error:
        raise UsageError(_broken(what, library, error)) from error


def _broken(what: str, library: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{what} needs {library}, which is installed but cannot be imported ({reason}); install it again."
