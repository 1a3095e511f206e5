"""Numbers as users give them: one, or several."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.core.errors import UsageError


def positive_numbers(name: str, given: object) -> tuple[npt.NDArray[np.float64], bool]:
    """Positive finite numbers ``[k]``, and whether several were given.

    Args:
        name: Of the argument, for the sentence.
        given: A number or a list of them.

    Raises:
        UsageError: It is neither, or one is not positive.
    """
    try:
        values = np.asarray(given)
        values = values.astype(np.float64) if values.dtype.kind in "iuf" else np.zeros(0)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim > 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(f"{name}={given!r} must be a positive number or a list of them.")
    return np.atleast_1d(values), values.ndim == 1


def check_cosine(value: Any, name: str = "cosine") -> float:
    """A number between 0 and 1, both left out.

    Args:
        value: What was given.
        name: What to call it.

    Raises:
        UsageError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise UsageError(f"{name} must be a number between 0 and 1, such as 0.9, not {value!r}.")
    return float(value)
