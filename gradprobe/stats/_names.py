"""Estimators by the name that a user writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradprobe.core.errors import UsageError, unknown


def two_of(names: Sequence[str], first: str, second: str) -> list[int]:
    """Where two different estimators are.

    Raises:
        UsageError: There is no such estimator, or both are the same.
    """
    found = [index_of(names, name) for name in (first, second)]
    if found[0] == found[1]:
        raise UsageError(f"first and second are both {first!r}; name two estimators.")
    return found


def listed(what: str, given: object) -> list[str]:
    """Names as a list, from one or several.

    Raises:
        UsageError: It is neither.
    """
    several = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(name, str) for name in several):
        raise UsageError(f"{what}={given!r} must be a name or a list of names.")
    return [str(name) for name in several]


def index_of(names: Sequence[str], name: str) -> int:
    """Where an estimator is; its name without options is enough if it is the only one of that name.

    Raises:
        UsageError: There is none, or several.
    """
    alike = [n for n in names if n.partition("(")[0] == name]
    if name in names or len(alike) != 1:
        alike = [n for n in names if n == name]
    if not alike:
        raise unknown("estimator", name, names)
    return list(names).index(alike[0])
