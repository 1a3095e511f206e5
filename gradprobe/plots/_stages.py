"""What the figure of training shows, taken from ``gradprobe.stats``: a quantity of each method at each checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.plots._panels import Curve, Panel, rank_of
from gradprobe.store.along import further

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stages(Curve):
    """One method in one panel: ``mean``, ``low`` and ``high`` at each checkpoint, ``copies`` its place on the axis.

    Attributes:
        states: State at each checkpoint; "measured" for a cosine.
        labels: Checkpoints, or sigmas.
    """

    states: tuple[str, ...] = ()
    labels: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        values = {"value": self.mean, "low": self.low, "high": self.high, "state": self.states}
        return {"estimator": self.estimator, "at": self.labels} | values | {"note": self.note}


@dataclass(frozen=True)
class StagePanel(Panel):
    """One layer, or the whole model.

    Attributes:
        stages: One for each method.
    """

    stages: list[Stages] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        methods = [s.to_dict() for s in self.stages]
        return {"name": self.name, "over": self.over, "numel": self.numel, "methods": methods}


@dataclass(frozen=True)
class Asked:
    """What was asked of ``gradprobe.stats``.

    Attributes:
        quantity: ``cosine``, ``ceiling``, ``half_copies`` or ``price``.
        copies: Where the cosine is taken.
        reference: What it is held against.
        scale: Scale of the model.
    """

    quantity: str
    copies: int
    reference: str
    scale: str


def stage_panels(
    ds: xr.Dataset, estimators: list[str], layers: list[str], asked: Asked, model: bool
) -> list[StagePanel]:
    """A panel for each layer, and one for everything that was probed.

    Args:
        ds: Runs side by side.
        estimators: Labels.
        layers: Names.
        asked: What is shown.
        model: Whether the model has a panel.
    """
    found = []
    if layers:
        values = _values(ds, "layer", asked, "raw")
        for name in layers:
            one = values.sel(layer=name)
            numel = int(ds["numel"].values[ds["layer"].values == name].sum())
            found.append(StagePanel(name, "layer", numel, [], stages=_stages(ds, one, estimators, name)))
    if model:
        values = _values(ds, "model", asked, asked.scale)
        name = "model, unit gain" if asked.scale == "unit-gain" else "model"
        numel = int(ds["numel"].sum())
        found.append(StagePanel(name, "model", numel, [], stages=_stages(ds, values, estimators)))
    return found


def places(labels: npt.NDArray[Any]) -> Array:
    """Where checkpoints lie on the axis: at their numbers, or one after the other."""
    return labels.astype(float) if labels.dtype.kind in "iuf" else np.arange(labels.size, dtype=float)


def _values(ds: xr.Dataset, over: str, asked: Asked, scale: str) -> xr.Dataset:
    """``value``, ``low``, ``high`` and ``state`` over (checkpoint, estimator[, layer])."""
    if asked.quantity == "cosine":
        cosines = stats.cosine(ds, over, asked.reference, scale)
        if asked.copies not in cosines["copies"].values:
            raise UsageError(
                f"copies={asked.copies} is not stored in these runs; they go from {int(cosines['copies'][0])} to "
                f"{int(cosines['copies'][-1])} in steps of {ds.attrs['block']}."
            )
        found = stats.bands(cosines.sel(copies=asked.copies)).rename(mean="value")
        state = xr.where(found["value"].notnull(), "measured", "missing")
        return found[["value", "low", "high"]].assign(state=state)
    law = stats.alignment(ds, over, asked.reference, scale)
    found = xr.Dataset({end: law[asked.quantity + s] for end, s in _ENDS.items()} | {"state": law["state"]})
    if asked.quantity == "price":  # a value whose interval is open is noise
        found["value"] = found["value"].where(
            np.isfinite(found["high"]) | (found["state"] == "too few seeds")
        )
    return found


_ENDS = {"value": "", "low": "_low", "high": "_high"}


def _stages(
    ds: xr.Dataset, values: xr.Dataset, estimators: list[str], layer: str | None = None
) -> list[Stages]:
    dim = further(ds)
    mine = np.flatnonzero(ds["layer"].values == layer) if layer else np.arange(ds.sizes["parameter"])
    found = []
    for label in estimators:
        one = values.sel(estimator=label).transpose(dim, ...)
        value, low, high = (np.asarray(one[k].values, dtype=np.float64) for k in _ENDS)
        status = ds["status"].sel(estimator=label).isel(parameter=mine).transpose(dim, ...).values
        states = tuple(
            _why(own) if state == "missing" else str(state)
            for state, own in zip(one["state"].values, status, strict=True)
        )
        found.append(
            Stages(
                estimator=label,
                color=str(ds["color"].sel(estimator=label).values),
                rank=rank_of(ds, label),
                place=[str(e) for e in ds["estimator"].values].index(label),
                open=str(ds["target"].sel(estimator=label).values) == "surrogate",
                flat=not bool(ds["stochastic"].sel(estimator=label)),
                copies=places(ds[dim].values),  # type: ignore[arg-type]  # not whole where checkpoints have numbers
                mean=value,
                low=low,
                high=high,
                seeds=np.zeros(value.size, dtype=np.int64),
                note=_note(states, np.isfinite(value)),
                states=states,
                labels=tuple(ds[dim].values.tolist()),
            )
        )
    return found


def _why(status: npt.NDArray[Any]) -> str:
    """Why nothing is there, from the status of all seeds and parameters."""
    if (status == "failed").any():
        return "failed"
    return "refused" if (status == "refused").all() else "missing"


def _note(states: tuple[str, ...], known: npt.NDArray[np.bool_]) -> str:
    """Why a method has no value at some checkpoints, where it is not only that they are not resolved."""
    gone = [s for s, k in zip(states, known, strict=True) if not k and s not in ("bounded", "unresolved")]
    if known.any() or not gone:
        return "" if known.any() or not states else "nowhere resolved"
    return max(set(gone), key=gone.count)
