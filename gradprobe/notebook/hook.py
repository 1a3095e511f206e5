"""IPython is told how gradprobe's data is shown. Imports nothing but what is there already."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from gradprobe.core.shell import running_shell

View = Callable[[Any], str | None]

_SHOWN = {
    ("xarray.core.dataset", "Dataset"): ("gradprobe.notebook.labelled", "dataset_view"),
    ("xarray.core.dataarray", "DataArray"): ("gradprobe.notebook.labelled", "array_view"),
    ("xarray", "Dataset"): ("gradprobe.notebook.labelled", "dataset_view"),
    ("xarray", "DataArray"): ("gradprobe.notebook.labelled", "array_view"),
    ("pandas", "DataFrame"): ("gradprobe.notebook.methods", "methods_view"),
    ("pandas.core.frame", "DataFrame"): ("gradprobe.notebook.methods", "methods_view"),
    ("gradprobe.problems.problem", "Problem"): ("gradprobe.notebook.problem", "problem_view"),
}
"""(module, class) -> (module, function that gives HTML, or None for what is none of ours).

Libraries differ over versions in the module that their classes name."""

_FIGURE = ("gradprobe.plots._style", "PaperFigure")


def register() -> bool:
    """Have a running IPython show gradprobe's data; anything else stays as it was.

    Types are named, not imported, so this costs nothing. A formatter of the user's own for such a type stays: one
    that was registered for the type goes before ours, one for the type's name is asked for what is not gradprobe's.

    Returns:
        Whether there is a running IPython.
    """
    shell = running_shell()
    if shell is None:
        return False
    try:
        formatter = shell.display_formatter.formatters["text/html"]
        for of, where in _SHOWN.items():
            _register(formatter, of, where)
        shell.display_formatter.formatters["image/png"].for_type_by_name(*_FIGURE, _picture)
    except Exception:  # the display of a notebook must never keep the package from being imported
        return False
    return True


def _picture(figure: Any) -> tuple[bytes, dict[str, int]]:
    """A figure and the size at which it is shown; matplotlib's own formatter would show it coarser."""
    return figure._repr_png_(), figure.shown_size()


def _register(formatter: Any, of: tuple[str, str], where: tuple[str, str]) -> None:
    shown = _Shown(*where)
    before = formatter.for_type_by_name(*of, shown)
    shown.before = before.before if isinstance(before, _Shown) else before


class _Shown:
    """Shows an object as a view says, and as before where the view has nothing to say or fails.

    Args:
        module: Import path of the view's file.
        name: Name of the function.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.before: Any = None

    def __call__(self, thing: Any) -> str | None:
        try:
            found = getattr(importlib.import_module(self.module), self.name)(thing)
        except Exception:  # whatever goes wrong: the user sees what there was without us
            found = None
        return found if found is not None else self._plain(thing)

    def _plain(self, thing: Any) -> str | None:
        own = self.before or getattr(type(thing), "_repr_html_", None)
        return own(thing) if own is not None else None
