"""What the figure of data and copies shows, taken from ``gradprobe.stats.data_or_copies``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gradprobe import stats

_NOTHING = ("too few copies", "missing", "undefined", "refused", "gain unresolved")

Ends = tuple[float, float, float]
"""Value, low and high; NaN where there is none."""


@dataclass(frozen=True)
class Line:
    """One method in one panel.

    Attributes:
        estimator: Label of the method.
        color: "#rrggbb", from the data.
        open: Whether its target is a surrogate; gives an open marker.
        variance: Relative variance of one copy.
        crossover: n*.
        state: State of n*.
    """

    estimator: str
    color: str
    open: bool
    variance: Ends
    crossover: Ends
    state: str

    @property
    def note(self) -> str:
        """Why there is no line, or no crossing; "" if all is well."""
        if not np.isfinite(self.variance[0]):
            return self.state if self.state in _NOTHING else "variance unresolved"
        return "crossing unresolved" if self.state == "unresolved" else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        named: dict[str, Any] = {"estimator": self.estimator, "color": self.color, "state": self.state}
        for name in ("variance", "crossover"):
            named |= {
                name + end: v for end, v in zip(("", "_low", "_high"), getattr(self, name), strict=True)
            }
        return named


@dataclass(frozen=True)
class Crossings:
    """One layer, or the whole model.

    Attributes:
        name: Name of the layer, or what the model's panel is called.
        over: ``layer`` or ``model``.
        numel: Number of weights.
        share: Share of the data's noise in a batch's squared gradient.
        lines: One per method with noise.
    """

    name: str
    over: str
    numel: int
    share: Ends
    lines: list[Line]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        shares = {"data_share" + e: v for e, v in zip(("", "_low", "_high"), self.share, strict=True)}
        named: dict[str, Any] = {"name": self.name, "over": self.over, "numel": self.numel}
        return named | shares | {"methods": [line.to_dict() for line in self.lines]}


def crossings(
    ds: xr.Dataset, estimators: list[str], layers: list[str], scale: str, model: bool
) -> list[Crossings]:
    """A panel for each layer, and one for everything that was probed.

    Args:
        ds: Results.
        estimators: Labels; those without noise are left out.
        layers: Names.
        scale: Scale of the model's panel.
        model: Whether it is there.
    """
    noisy = [e for e in estimators if bool(ds["stochastic"].sel(estimator=e))]
    found = []
    if layers:
        over = stats.data_or_copies(ds)
        found = [_panel(over.sel(layer=name), name, "layer", noisy) for name in layers]
    if model:
        name = "model, unit gain" if scale == "unit-gain" else "model"
        whole = stats.data_or_copies(ds, "model", scale).assign_coords(numel=int(ds["numel"].sum()))
        found.append(_panel(whole, name, "model", noisy))
    return found


def _panel(values: xr.Dataset, name: str, over: str, estimators: list[str]) -> Crossings:
    lines = [_line(values.sel(estimator=e), e) for e in estimators]
    return Crossings(name, over, int(values["numel"]), _ends(values, "data_share"), lines)


def _line(values: xr.Dataset, label: str) -> Line:
    ends = [_ends(values, name) for name in ("copies_variance", "crossover")]
    open_ = str(values["target"].values) == "surrogate"
    return Line(label, str(values["color"].values), open_, ends[0], ends[1], str(values["state"].values))


def _ends(values: xr.Dataset, name: str) -> Ends:
    return float(values[name]), float(values[f"{name}_low"]), float(values[f"{name}_high"])
