"""Level 3, labelled side: figures of stored results. No torch here, and nothing is computed here.

Every figure is a function that a file of this folder registers; ``gradprobe.plots.similarity`` is imported on
first use, and matplotlib with it. A file must not have the name of its figure: importing it would put the
module where the function belongs.
"""

from __future__ import annotations

from typing import Any

from gradprobe.core.registry import Registry

PLOTS = Registry("figure", __name__)
register = PLOTS.register


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in PLOTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return PLOTS.get(name)


def __dir__() -> list[str]:
    return [*globals(), *PLOTS.names()]
