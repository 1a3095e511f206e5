"""What a heat map shows in each cell: a number, a bound, or a word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats

Array = npt.NDArray[np.float64]

MODEL = "whole model"
WORDS = {"refused": "–", "missing": "?", "undefined": "none", "too few copies": "?"}
"""What stands where there is neither a number nor a bound."""

LOG = ("half_copies", "price", "gain")
"""Quantities on a logarithmic scale."""


@dataclass(frozen=True)
class Cells:
    """Cells of a heat map, ``[layer, method]``.

    Attributes:
        layers: Rows, the model last.
        methods: Columns.
        value: What the colour shows; NaN where there is only noise.
        text: What is written.
        mark: ``"value"``, ``"no interval"``, ``"bound"`` or ``"none"``.
        state: State of the alignment law.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    layers: list[str]
    methods: list[str]
    value: Array
    text: npt.NDArray[np.str_]
    mark: npt.NDArray[np.str_]
    state: npt.NDArray[np.str_]
    low: Array
    high: Array

    def to_dict(self) -> dict[str, Any]:
        """For the record of a figure."""
        return {k: getattr(self, k) for k in self.__dataclass_fields__}


def cells(
    ds: xr.Dataset,
    quantity: str,
    labels: list[str],
    layers: list[str],
    reference: str,
    copies: float,
    model: bool,
) -> Cells:
    """Cells of layers, and of the model after them.

    Args:
        ds: Results.
        quantity: As for ``heatmap``.
        labels: Methods.
        layers: Names of layers.
        reference: What estimates are held against.
        copies: n of the quantity "cosine".
        model: Whether the model has a row.
    """
    found = [_read(ds, "layer", quantity, labels, layers, reference, copies)]
    if model:
        found.append(_read(ds, "model", quantity, labels, [MODEL], reference, copies))
    value, low, high, state = (np.concatenate([f[i] for f in found]) for i in range(4))
    mark = _marks(quantity, value, low, high, state)
    text = np.array(
        [
            _text(quantity, *each)
            for each in zip(mark.flat, value.flat, low.flat, high.flat, state.flat, strict=True)
        ],
        dtype="<U16",
    ).reshape(value.shape)
    names = layers + [MODEL] * model
    return Cells(names, labels, np.where(_shown(mark), value, np.nan), text, mark, state, low, high)


def _read(
    ds: xr.Dataset,
    over: str,
    quantity: str,
    labels: list[str],
    layers: list[str],
    reference: str,
    copies: float,
) -> list[npt.NDArray[Any]]:
    """Value, low, high and state, each ``[layer, method]``."""
    law = stats.alignment(ds, over, reference)
    source = stats.predict(law, copies) if quantity == "cosine" else law
    picked = [source[f"{quantity}{end}"] for end in ("", "_low", "_high")] + [law["state"]]
    at: dict[str, Any] = {"estimator": labels} | ({"layer": layers} if over == "layer" else {})
    return [p.sel(at).transpose(..., "estimator").values.reshape(len(layers), len(labels)) for p in picked]


def _marks(
    quantity: str, value: Array, low: Array, high: Array, state: npt.NDArray[np.str_]
) -> npt.NDArray[np.str_]:
    """What each cell is; a number whose interval holds 0 (or has no upper end) is noise, and shown as a bound."""
    ends = np.isfinite(low)
    with np.errstate(invalid="ignore"):
        noise = ~np.isfinite(high) if quantity in ("price", "half_copies") else (low <= 0) & (high >= 0)
    still = value == 0  # no noise at all: half-power copies and price are 0
    number = np.isfinite(value) & (~ends | ~noise | still)
    names = ["none", "no interval", "value", "bound"]
    conditions = [np.isin(state, list(WORDS)), number & ~ends, number, ends | np.isfinite(high)]
    return np.select(conditions, names, default="none")


def _shown(mark: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    return np.isin(mark, ("value", "no interval"))


def _text(quantity: str, mark: str, value: float, low: float, high: float, state: str) -> str:
    if mark == "none":
        return WORDS.get(state, "?")
    if mark == "no interval":
        return f"({number(quantity, value)})"
    if mark == "value":
        return number(quantity, value)
    if quantity in ("price", "half_copies", "ceiling") and low > 0:
        return f"≥ {number(quantity, low)}"
    if not math.isfinite(high) or (quantity == "ceiling" and high >= 1):
        return ""
    return f"≤ {number(quantity, max(abs(low), abs(high)))}"


def number(quantity: str, value: float) -> str:
    """A number in few letters: cosines to two digits, copies as ``1.3k``."""
    if quantity not in LOG:
        return f"{min(max(value, -1.0), 1.0):.2f}"
    if value == 0:
        return "0"
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * step:
            return (
                f"{value / step:.3g}{letter}" if abs(value) >= 99.5 * step else f"{value / step:.2g}{letter}"
            )
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.2g}"
