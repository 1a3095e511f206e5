"""What is missing from a cosine of 1 as segments of bars, taken from ``gradprobe.stats.decompose``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.patches import Patch

from gradprobe import stats

LOOKS: dict[str, dict[str, Any]] = {
    "smoothing": {"facecolor": "#1A2440"},
    "encoding": {"facecolor": "#D55E00"},
    "noise": {"facecolor": "#A6CEE3"},
    "encoding + smoothing": {"facecolor": "#D55E00", "edgecolor": "#1A2440", "hatch": "//////"},
    "noise + encoding": {"facecolor": "#A6CEE3", "edgecolor": "#D55E00", "hatch": "//////"},
    "total": {"facecolor": "0.9", "edgecolor": "0.45", "hatch": "//////"},
}
"""Parts from the axis outwards: what stays whatever the copies first. Light to dark for readers without colour."""

WORDS = {
    "smoothing": "smoothing bias",
    "encoding": "bias of the encoding",
    "noise": "noise",
    "encoding + smoothing": "encoding or smoothing",
    "noise + encoding": "noise or encoding",
    "total": "not told apart",
}
_SPLITS = (
    ("smoothing", "encoding", "noise"),
    ("smoothing", "noise + encoding"),
    ("encoding + smoothing", "noise"),
    ("total",),
    ("encoding + smoothing",),
    ("smoothing",),
)


@dataclass(frozen=True)
class Bar:
    """One method in one panel.

    Attributes:
        estimator: Label of the method.
        segments: Part -> value, those that are known and do not overlap.
        total: 1 - cos(n) and its interval: ``value``, ``low``, ``high``.
        states: ``state`` and ``smoothed_state`` of ``decompose``.
        note: Why there is nothing, or less than the total; "" if all is well.
        place: The method's place among the run's estimators.
    """

    estimator: str
    segments: dict[str, float]
    total: dict[str, float]
    states: dict[str, str]
    note: str = ""
    place: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        named = {"estimator": self.estimator, "parts": self.segments}
        return named | {f"total_{k}": v for k, v in self.total.items()} | self.states | {"note": self.note}


@dataclass(frozen=True)
class Group:
    """One layer, or the whole model, with a bar for each method.

    Attributes:
        name: Name of the layer, or what the model's panel is called.
        over: ``layer`` or ``model``.
        numel: Number of weights.
        bars: One per method.
    """

    name: str
    over: str
    numel: int
    bars: list[Bar]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        bars = [b.to_dict() for b in self.bars]
        return {"name": self.name, "over": self.over, "numel": self.numel, "methods": bars}


def groups(
    ds: xr.Dataset, estimators: list[str], layers: list[str], copies: float, scale: str, model: bool
) -> list[Group]:
    """A group for each layer, and one for everything that was probed.

    Args:
        ds: Results.
        estimators: Labels.
        layers: Names.
        copies: n.
        scale: Scale of the model's group.
        model: Whether it is there.
    """
    found = []
    if layers:
        parts = stats.decompose(ds, copies)
        for name in layers:
            one = parts.sel(layer=name)
            found.append(Group(name, "layer", int(one["numel"]), [_bar(one, e) for e in estimators]))
    if model:
        parts = stats.decompose(ds, copies, "model", scale)
        name = "model, unit gain" if scale == "unit-gain" else "model"
        bars = [_bar(parts, e) for e in estimators]
        found.append(Group(name, "model", int(ds["numel"].sum()), bars))
    return found


def noise_and_bias(ds: xr.Dataset, estimators: list[str], layers: list[str], copies: float) -> list[Group]:
    """A group for each layer of a run without the smoothed reference: noise, and bias whatever its cause.

    Where the ceiling is resolved the two parts are ceiling - cosine and 1 - ceiling; elsewhere the total alone.

    Args:
        ds: Results.
        estimators: Labels.
        layers: Names.
        copies: n.
    """
    law = stats.alignment(ds)
    reached = stats.predict(law, [copies]).isel(copies=0)
    found = []
    for name in layers:
        bars = []
        for place, label in enumerate(str(e) for e in ds["estimator"].values):
            at = {"layer": name, "estimator": label}
            if label in estimators:
                bars.append(_two_parts(law.sel(at), reached.sel(at), label, place))
        found.append(Group(name, "layer", int(law["numel"].sel(layer=name)), bars))
    return found


def _two_parts(law: xr.Dataset, reached: xr.Dataset, label: str, place: int) -> Bar:
    state, ceiling = str(law["state"].values), float(law["ceiling"])
    cosine, low, high = (float(reached[f"cosine{end}"]) for end in ("", "_low", "_high"))
    total = {"value": 1 - cosine, "low": 1 - high, "high": 1 - low}
    states = {"state": state, "smoothed_state": "none"}
    if not np.isfinite(cosine):
        return Bar(label, {}, total, states, state if state != "resolved" else "noise unknown", place)
    if np.isfinite(ceiling):
        return Bar(
            label, {"encoding + smoothing": 1 - ceiling, "noise": ceiling - cosine}, total, states, "", place
        )
    return Bar(label, {"total": 1 - cosine}, total, states, "", place)


def _bar(parts: xr.Dataset, label: str) -> Bar:
    one = parts.sel(estimator=label)
    values = {str(p): float(v) for p, v in zip(one["part"].values, one["value"].values, strict=True)}
    ends = {k: float(one[k].sel(part="total")) for k in ("value", "low", "high")}
    states = {k: str(one[k].values) for k in ("state", "smoothed_state")}
    split = next((s for s in _SPLITS if all(np.isfinite(values[p]) for p in s)), ())
    note = ""
    if not np.isfinite(ends["value"]):
        note = states["state"] if not split else "noise unknown"
    place = [str(e) for e in parts["estimator"].values].index(label)
    return Bar(label, {p: values[p] for p in split}, ends, states, note, place)


def key(shown: set[str]) -> list[Patch]:
    """Entries of the legend for the parts that are shown."""
    return [Patch(linewidth=0, label=WORDS[part], **look) for part, look in LOOKS.items() if part in shown]
