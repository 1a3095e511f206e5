"""Level 2, labelled side: statistics of stored moments. No torch here.

Every public statistic is a function that a file of this folder registers; ``gradprobe.stats.cosine`` is
imported on first use. Of several runs side by side (``gp.concat``) each statistic is that of each run alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gradprobe.core.registry import Registry

STATISTICS = Registry("statistic", __name__)

P = ParamSpec("P")
R = TypeVar("R")


def register(
    name: str, *, summary: str, itself: tuple[str, ...] = (), **meta: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that registers a statistic, and lets it take several runs side by side.

    Args:
        name: What the user writes.
        summary: One line that says what it is.
        itself: Dimensions of runs side by side that the statistic knows; along others it is taken of each run.
        **meta: Further literal facts.

    Returns:
        The decorator.
    """

    def add(function: Callable[P, R]) -> Callable[P, R]:
        from gradprobe.stats._along import along_runs  # xarray: not for names alone

        return STATISTICS.register(name, summary=summary, **meta)(along_runs(function, itself))

    return add


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in STATISTICS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return STATISTICS.get(name)


def __dir__() -> list[str]:
    return [*globals(), *STATISTICS.names()]
