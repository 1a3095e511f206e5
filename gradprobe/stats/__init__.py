"""Level 2, labelled side: statistics of stored moments. No torch here.

Every public statistic is a function that a file of this folder registers; ``gradprobe.stats.cosine`` is
imported on first use.
"""

from __future__ import annotations

from typing import Any

from gradprobe.core.registry import Registry

STATISTICS = Registry("statistic", __name__)
register = STATISTICS.register


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in STATISTICS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return STATISTICS.get(name)


def __dir__() -> list[str]:
    return [*globals(), *STATISTICS.names()]
