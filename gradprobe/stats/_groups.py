"""Layers by name or pattern, and groups of layers."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.core.errors import UsageError, unknown

Patterns = str | Sequence[str]
Over = str | Mapping[str, Patterns]


def chosen_layers(known: Sequence[str], patterns: Patterns) -> list[str]:
    """Names in the order of ``known``, by name (one of "a = b" is enough) or glob.

    Raises:
        UsageError: A pattern matches no layer.
    """
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        hit = {x for x in known if _matches(pattern, x)}
        if not hit:
            raise unknown("layer", pattern, known)
        chosen |= hit
    return [x for x in known if x in chosen]


def _matches(pattern: str, name: str) -> bool:
    names = {name, *name.split(" = ")}
    return any(pattern == n or fnmatch.fnmatchcase(n, pattern) for n in names)


def check_groups(over: Any) -> None:
    """Refuse what is no mapping from names of groups to names of layers or patterns.

    Raises:
        UsageError: It is not one, or it is empty.
    """
    if over and not isinstance(over, Mapping):
        raise unknown("over", over, ("parameter", "layer", "model", "groups of layers by name"))
    example = 'for example over={"features": ["conv*"], "head": "fc"}'
    if not over:
        raise UsageError(f"over={over!r} names no group; give at least one, {example}.")
    for name, patterns in over.items():
        listed = [patterns] if isinstance(patterns, str) else patterns
        fine = isinstance(name, str) and isinstance(listed, Sequence) and len(listed) > 0
        if not fine or not all(isinstance(p, str) for p in listed):
            raise UsageError(f"group {name!r} must be a name with layers or patterns, {example}.")


def group_layers(known: Sequence[str], over: Mapping[str, Patterns]) -> dict[str, npt.NDArray[np.int64]]:
    """Group -> indices of its layers in ``known``. A layer may be in several groups.

    Raises:
        UsageError: A pattern matches no layer.
    """
    place = {name: i for i, name in enumerate(known)}
    return {
        group: np.array([place[x] for x in chosen_layers(known, patterns)])
        for group, patterns in over.items()
    }
