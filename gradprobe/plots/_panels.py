"""What the similarity figure shows, taken from ``gradprobe.stats``: one panel per layer and one for the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats
from gradprobe.plots._choice import Choice

Array = npt.NDArray[np.float64]

LAW_POINTS = 60
"""Most points at which the law is drawn; it is smooth."""


@dataclass(frozen=True)
class Curve:
    """One method in one panel.

    Attributes:
        estimator: Label of the method.
        color: "#rrggbb", from the data.
        rank: Its place among the run's estimators that are open like it, or not; gives the marker.
        open: Whether its target is a surrogate; gives an open marker.
        flat: Whether it is deterministic.
        copies: ``[K]``.
        mean: Mean over seeds ``[K]``, NaN where there is nothing.
        low: Lower edge of the band ``[K]``; ``high`` alike.
        high: Upper edge.
        seeds: Number of seeds behind each point ``[K]``.
        law: ``copies`` and ``cosine`` of the fitted law; empty where there is none.
        ceiling: ``value``, ``low``, ``high`` and ``state``; empty if no law was asked for.
        note: Why there is nothing, or less than one would expect; "" if all is well.
    """

    estimator: str
    color: str
    rank: int
    open: bool
    flat: bool
    copies: npt.NDArray[np.int64]
    mean: Array
    low: Array
    high: Array
    seeds: npt.NDArray[np.int64]
    law: dict[str, Array] = field(default_factory=dict)
    ceiling: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def resolved(self) -> bool:
        """Whether there is a ceiling to mark; that of a deterministic method is its line."""
        return self.ceiling.get("state") == "resolved" and not self.flat

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        names = ("estimator", "color", "copies", "mean", "low", "high", "seeds", "law")
        ceiling = {k if k == "state" else f"ceiling_{k}": v for k, v in self.ceiling.items()}
        ceiling = {"ceiling": ceiling.pop("ceiling_value", None), "state": None} | ceiling
        return {k: getattr(self, k) for k in names} | ceiling | {"note": self.note}


@dataclass(frozen=True)
class Panel:
    """One layer, or the whole model.

    Attributes:
        name: Name of the layer, or what the model's panel is called.
        over: ``layer`` or ``model``.
        numel: Number of weights.
        curves: One per method, in the order that was asked for.
        theory: ``copies`` and ``cosine`` of random directions in all its weights; empty if not asked for.
    """

    name: str
    over: str
    numel: int
    curves: list[Curve]
    theory: dict[str, Array] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        curves = [c.to_dict() for c in self.curves]
        line = {"theory": self.theory} if self.theory else {}
        return {"name": self.name, "over": self.over, "numel": self.numel, "methods": curves} | line


def law_is_there(ds: xr.Dataset) -> bool:
    """Whether the run holds the two blocks that a law needs."""
    noisy = bool(np.asarray(ds["stochastic"].values, dtype=bool).any())
    return not noisy or int(ds["copies"].values[-1]) >= 2 * int(ds.attrs["block"])


def layer_panels(ds: xr.Dataset, estimators: list[str], layers: list[str], choice: Choice) -> list[Panel]:
    """A panel for each layer."""
    if not layers:
        return []
    found = _Numbers(ds, "layer", choice)
    numel = {name: int(found.bands["numel"].sel(layer=name)) for name in layers}
    return [
        Panel(name, "layer", d, found.curves(ds, estimators, name), _theory(ds, d, choice))
        for name, d in numel.items()
    ]


def model_panel(ds: xr.Dataset, estimators: list[str], choice: Choice) -> Panel:
    """The panel of the whole model: everything that was probed, whatever layers are shown."""
    name = "model, unit gain" if choice.scale == "unit-gain" else "model"
    curves = _Numbers(ds, "model", choice).curves(ds, estimators, None)
    numel = int(ds["numel"].sum())
    return Panel(name, "model", numel, curves, _theory(ds, numel, choice))


def _theory(ds: xr.Dataset, numel: int, choice: Choice) -> dict[str, Array]:
    if not choice.theory:
        return {}
    line = stats.theory(numel, thinned(ds["copies"].values))
    return {"copies": line["copies"].values, "cosine": line.values}


def thinned(grid: npt.NDArray[np.int64]) -> list[int]:
    """The stored copies at which a smooth curve is drawn."""
    keep = np.unique(np.geomspace(1, grid.size, min(LAW_POINTS, grid.size)).astype(int)) - 1
    return [int(n) for n in grid[keep]]


class _Numbers:
    """All statistics of a figure over layers, or over the model.

    They are taken from the whole run before anything is selected: a statistic of one method may lean on the
    others (the norm of a layer that it refused).
    """

    def __init__(self, ds: xr.Dataset, over: str, choice: Choice) -> None:
        scale = choice.scale if over == "model" else "raw"
        self.band, self.scale = choice.band, scale
        self.bands = stats.bands(stats.cosine(ds, over, choice.reference, scale), level=choice.level)
        self.law = self.fit = None
        if choice.law and law_is_there(ds):
            fit = stats.alignment(ds, over, choice.reference, scale)
            self.fit = fit[["ceiling", "ceiling_low", "ceiling_high", "state"]]
            self.law = stats.predict(fit, thinned(ds["copies"].values))

    def curves(self, ds: xr.Dataset, estimators: list[str], layer: str | None) -> list[Curve]:
        """One curve per estimator; ``layer`` None: over the model."""
        return [
            self._curve(ds, e, {"estimator": e} | ({"layer": layer} if layer else {})) for e in estimators
        ]

    def _curve(self, ds: xr.Dataset, label: str, at: dict[str, str]) -> Curve:
        values = self.bands.sel(at)
        flat = not bool(ds["stochastic"].sel(estimator=label))
        mean = values["mean"].values
        low, high = values["low"].values, values["high"].values
        if self.band == "std":
            low, high = mean - values["std"].values, mean + values["std"].values
        law, ceiling = self._law(at, flat, values["copies"].values[np.isfinite(mean)])
        return Curve(
            estimator=label,
            color=str(ds["color"].sel(estimator=label).values),
            rank=rank_of(ds, label),
            open=str(ds["target"].sel(estimator=label).values) == "surrogate",
            flat=flat,
            copies=values["copies"].values,
            mean=mean,
            low=low,
            high=high,
            seeds=values["seeds"].values,
            law=law,
            ceiling=ceiling,
            note=_note(ds, label, at.get("layer"), values, self.scale),
        )

    def _law(self, at: dict[str, str], flat: bool, reached: Any) -> tuple[dict[str, Array], dict[str, Any]]:
        if self.fit is None or self.law is None:
            return {}, {}
        fit = self.fit.sel(at)
        ceiling = {
            k: float(fit[f"ceiling{s}"]) for k, s in (("value", ""), ("low", "_low"), ("high", "_high"))
        }
        law = self.law["cosine"].sel(at)
        inside = np.isfinite(law.values) & (law["copies"].values <= (reached[-1] if reached.size else 0))
        curve = {"copies": law["copies"].values[inside], "cosine": law.values[inside]}
        drawn = inside.any() and not flat
        return curve if drawn else {}, ceiling | {"state": str(fit["state"].values)}


def rank_of(ds: xr.Dataset, label: str) -> int:
    """Markers follow the run, not the choice, so that a method looks alike in all figures of a run."""
    target = dict(zip(ds["estimator"].values, ds["target"].values, strict=True))
    noisy = dict(zip(ds["estimator"].values, ds["stochastic"].values, strict=True))
    alike = [e for e in target if noisy[e] and (target[e] == "surrogate") == (target[label] == "surrogate")]
    return alike.index(label) if label in alike else 0


def _note(ds: xr.Dataset, label: str, layer: str | None, values: xr.Dataset, scale: str) -> str:
    """Why a method has no curve, or fewer seeds or layers behind it than the others; "" if it has all."""
    status = ds["status"].sel(estimator=label).transpose("parameter", "seed").values
    names = ds["layer"].values
    if layer is not None:
        status = status[names == layer]
    refused = (status == "refused").all(axis=1)
    count = int(values["seeds"].max())
    if not count:
        for word in ("failed", "missing"):
            if (status == word).any():
                return word
        if refused.all():
            return "refused"
        return "gain unresolved" if scale == "unit-gain" else "undefined"
    gone = len(set(names[refused])) if layer is None else 0
    notes = [f"{gone} layer{'s'[: gone > 1]} refused"] if gone else []
    notes += [f"{count} of {ds.sizes['seed']} seeds"] if count < ds.sizes["seed"] else []
    return ", ".join(notes)
