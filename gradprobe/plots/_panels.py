"""What the similarity figure shows, taken from ``gradprobe.stats``: one panel per layer and one for the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats
from gradprobe.plots._choice import Choice
from gradprobe.store.levels import level_mask, one_kind

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
        place: Its place among the run's estimators.
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
    place: int = 0

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
        numel: Number of weights (or levels of noise).
        curves: One per method, in the order that was asked for.
        theory: ``copies`` and ``cosine`` of random directions in all its weights; empty if not asked for.
        of: What is counted: weights, or levels.
    """

    name: str
    over: str
    numel: int
    curves: list[Curve]
    theory: dict[str, Array] = field(default_factory=dict)
    of: str = "weights"

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
    numel = {name: int(found.numel[found.layers.index(name)]) for name in layers}
    return [
        Panel(name, "layer", d, found.curves(ds, estimators, name), _theory(ds, d, choice), _kind(ds, name))
        for name, d in numel.items()
    ]


def model_panel(ds: xr.Dataset, estimators: list[str], choice: Choice) -> Panel:
    """The panel of the whole model: everything that was probed, whatever layers are shown."""
    name = "model, unit gain" if choice.scale == "unit-gain" else "model"
    curves = _Numbers(ds, "model", choice).curves(ds, estimators, None)
    levels = level_mask(ds)
    numel = int(ds["numel"].values[one_kind(np.arange(levels.size), levels)].sum())
    kind = "levels" if levels.all() else "weights"
    return Panel(name, "model", numel, curves, _theory(ds, numel, choice), kind)


def _kind(ds: xr.Dataset, layer: str) -> str:
    return "levels" if level_mask(ds)[ds["layer"].values == layer].all() else "weights"


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
        bands = stats.bands(stats.cosine(ds, over, choice.reference, scale), level=choice.level)
        self.copies = bands["copies"].values
        self.layers = [str(x) for x in bands["layer"].values] if over == "layer" else []
        self.numel = bands["numel"].values if over == "layer" else np.array([])
        self.bands = _arrays(bands[["mean", "low", "high", "std", "seeds"]])
        self.fit: dict[str, Any] = {}
        if choice.law and law_is_there(ds):
            fit = stats.alignment(ds, over, choice.reference, scale)
            self.fit = _arrays(fit[["ceiling", "ceiling_low", "ceiling_high", "state"]])
            law = stats.predict(fit, thinned(ds["copies"].values))
            self.law_copies, self.law = law["copies"].values, _arrays(law[["cosine"]])["cosine"]

    def curves(self, ds: xr.Dataset, estimators: list[str], layer: str | None) -> list[Curve]:
        """One curve per estimator; ``layer`` None: over the model."""
        known = [str(e) for e in ds["estimator"].values]
        rest = () if layer is None else (self.layers.index(layer),)
        return [self._curve(ds, e, (known.index(e), *rest), layer) for e in estimators]

    def _curve(self, ds: xr.Dataset, label: str, at: tuple[int, ...], layer: str | None) -> Curve:
        values = {name: array[at] for name, array in self.bands.items()}
        place = at[0]
        flat = not bool(ds["stochastic"].values[place])
        mean, low, high = values["mean"], values["low"], values["high"]
        if self.band == "std":
            low, high = mean - values["std"], mean + values["std"]
        law, ceiling = self._law(at, flat, self.copies[np.isfinite(mean)])
        return Curve(
            estimator=label,
            color=str(ds["color"].values[place]),
            rank=rank_of(ds, label),
            open=str(ds["target"].values[place]) == "surrogate",
            flat=flat,
            copies=self.copies,
            mean=mean,
            low=low,
            high=high,
            seeds=values["seeds"],
            law=law,
            ceiling=ceiling,
            note=_note(ds, place, layer, int(values["seeds"].max()), self.scale),
            place=place,
        )

    def _law(self, at: tuple[int, ...], flat: bool, reached: Any) -> tuple[dict[str, Array], dict[str, Any]]:
        if not self.fit:
            return {}, {}
        names = {"value": "ceiling", "low": "ceiling_low", "high": "ceiling_high"}
        ceiling: dict[str, Any] = {k: float(self.fit[name][at]) for k, name in names.items()}
        law = self.law[at]
        inside = np.isfinite(law) & (self.law_copies <= (reached[-1] if reached.size else 0))
        drawn = inside.any() and not flat
        curve = {"copies": self.law_copies[inside], "cosine": law[inside]} if drawn else {}
        return curve, ceiling | {"state": str(self.fit["state"][at])}


def _arrays(ds: xr.Dataset) -> dict[str, Any]:
    """Plain arrays ``[estimator, layer, copies]`` of what there is of these: many small selections are slow."""
    order = ("estimator", "layer", "copies")
    return {str(k): v.transpose(*(d for d in order if d in v.dims)).values for k, v in ds.data_vars.items()}


def rank_of(ds: xr.Dataset, label: str) -> int:
    """Markers follow the run, not the choice, so that a method looks alike in all figures of a run."""
    target = dict(zip(ds["estimator"].values, ds["target"].values, strict=True))
    noisy = dict(zip(ds["estimator"].values, ds["stochastic"].values, strict=True))
    alike = [e for e in target if noisy[e] and (target[e] == "surrogate") == (target[label] == "surrogate")]
    return alike.index(label) if label in alike else 0


def _note(ds: xr.Dataset, place: int, layer: str | None, count: int, scale: str) -> str:
    """Why a method has no curve, or fewer seeds or layers behind it than the others; "" if it has all."""
    status = ds["status"].transpose("estimator", "parameter", "seed").values[place]
    names = ds["layer"].values
    if layer is not None:
        status = status[names == layer]
    refused = (status == "refused").all(axis=1)
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
