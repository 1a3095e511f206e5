"""Numbers as they are written in the cells of tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradprobe.report.text import cell


def number(name: str, value: Any) -> str:
    """A value: a word as it is, a flag as yes or no, a whole number with commas, others to three digits."""
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and abs(value) >= 1000 and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
    if isinstance(value, float) and value == -math.inf:
        return "-inf"
    return cell(name, value)


def with_ends(name: str, value: Any, low: Any, high: Any) -> str:
    """``0.912 [0.900, 0.925]``; the ends alone where there is no value, nothing where there is nothing."""
    own, least, most = (number(name, v) for v in (value, low, high))
    return f"{own} [{least}, {most}]".strip() if least or most else own
