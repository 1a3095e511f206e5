"""The one kind of error that is meant for the user, and how its sentence is made."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any


class UsageError(ValueError):
    """Input that cannot be served; the message is one sentence that names the way out."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Error for a name that does not exist: names it, the nearest right one, and all that are known.

    Args:
        kind: What was asked for ("estimator", "layer", ...).
        name: What the user wrote.
        known: The names that would have worked.

    Returns:
        The error, to be raised by the caller.
    """
    names = list(known)
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return UsageError(f"unknown {kind} {str(name)!r}.{hint} Known: {shown or 'none'}.")


def one_of(option: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that is not among the allowed ones.

    Raises:
        UsageError: It is not.
    """
    if value not in allowed:
        raise unknown(option, value, [str(a) for a in allowed if a is not None])


def described(value: object) -> str:
    """What a user gave where an instance was meant: "a str", or "the class Net (call it first)"."""
    return (
        f"the class {value.__name__} (call it first)"
        if isinstance(value, type)
        else f"a {type(value).__name__}"
    )


def positive(name: str, value: Any) -> float:
    """A positive finite number.

    Raises:
        UsageError: It is not one.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 < value < math.inf:
        raise UsageError(f"{name} must be a positive number, not {value!r}.")
    return float(value)


def finite(name: str, value: Any) -> float:
    """A number, neither infinite nor NaN.

    Raises:
        UsageError: It is not one.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        number = float(value) if real else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{name} must be a finite number, not {value!r}.")
    return number


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number from ``least`` on, of whatever integer type.

    Raises:
        UsageError: It is not one.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        kind = "a positive whole number" if least == 1 else f"a whole number from {least} on"
        raise UsageError(f"{name} must be {kind}, not {value!r}.")
    return number
