"""Several results of the same form as one, along a further dimension; and apart again.

A **comparison** (``gp.concat``) has the variables and coordinates of a run with a further dimension ``checkpoint`` or
``sigma``, first of all, and

==================  ================================  =======================================================
variable            dims                              meaning
==================  ================================  =======================================================
sqnorm_of_run       checkpoint (or sigma)             |g|^2 of the whole model, backprop on the run's batch
loss_of_run         checkpoint (or sigma)             loss of the batch without noise
==================  ================================  =======================================================

Where a run lacks an estimator, a seed or copies that another has, it is NaN there, with status "missing". ``attrs``
are those that all runs share; ``attrs["runs"]`` (JSON) has for each run its label, its own attributes and what it
holds, so that :func:`apart` gives back each run as it was; ``attrs["comparison"]`` (JSON) says in sentences how the
runs differ besides what is compared.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.store.paths import FURTHER

OF_RUN = {"total_reference_sqnorm": "sqnorm_of_run", "clean_loss": "loss_of_run"}
"""Attributes of a run -> variables over runs."""

HELD = ("reference", "estimator", "seed", "other_seed", "copies", "sample", "batch", "other_batch")
"""Dimensions along which one run may hold less than another."""

_SORTED = ("seed", "other_seed", "copies", "batch", "other_batch")
_MISSING = ("status", "state")


def is_comparison(ds: Any) -> TypeGuard[xr.Dataset]:
    """Whether results have a further dimension."""
    return isinstance(ds, xr.Dataset) and any(dim in ds.dims for dim in FURTHER)


def further(ds: xr.Dataset) -> str:
    """The further dimension of a comparison."""
    return next(dim for dim in FURTHER if dim in ds.dims)


def named(ds: xr.Dataset) -> str:
    """What results are of: the problem; of runs whose problems differ, model and data by the names of their files."""
    problem = ds.attrs.get("problem")
    if problem:
        return str(problem)
    known = json.loads(ds.attrs.get("configuration") or "{}")
    parts = [str(known[key]) for key in ("model", "data") if known.get(key)]
    return ", ".join(Path(part).name if Path(part).is_absolute() else part for part in parts)


def apart(ds: xr.Dataset) -> list[tuple[Any, xr.Dataset]]:
    """Each run of a comparison with its label, as it was before: without what others have and with its attributes.

    Args:
        ds: A comparison, or what a statistic made of one. What was selected from it stays selected.
    """
    dim = further(ds)
    told = {_plain(run["label"]): run for run in json.loads(ds.attrs.get("runs", "[]"))}
    found = []
    for at, label in enumerate(ds[dim].values):
        run = told.get(_plain(label))
        one = ds.isel({dim: at}, drop=True)
        found.append((_plain(label), one if run is None else _restored(one, run, dim, label)))
    return found


def last_run(ds: xr.Dataset) -> xr.Dataset:
    """The last run of a comparison as it was, except that methods which others have are there, as missing."""
    dim = further(ds)
    label = _plain(ds[dim].values[-1])
    told = [run for run in json.loads(ds.attrs.get("runs", "[]")) if run["label"] == label]
    one = ds.isel({dim: -1}, drop=True)
    return _restored(one, told[0], dim, label, ("estimator",)) if told else one


def one_sweep(ds: xr.Dataset) -> xr.Dataset:
    """Runs along sigma as one run of estimators at several sigmas, as of ``gp.sigma_sweep``; others as they are."""
    if "sigma" not in ds.dims:
        return ds
    parts: list[xr.Dataset] = []
    for sigma, run in apart(ds):
        noisy = run["stochastic"].values.astype(bool)
        names = [
            f"{e}(sigma={sigma!r})" if n else str(e)
            for e, n in zip(run["estimator"].values, noisy, strict=True)
        ]
        run = run.assign_coords(estimator=names)
        parts.append(run.isel(estimator=np.flatnonzero(noisy)) if parts else run)
    return xr.concat(
        parts,
        dim="estimator",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        fill_value={v: _fill(v, x) for v, x in parts[0].data_vars.items()},
        combine_attrs="override",
    )


def _restored(
    one: xr.Dataset, run: Mapping[str, Any], dim: str, label: Any, whole: Sequence[str] = ()
) -> xr.Dataset:
    """A run without padding (but along ``whole``), with its own attributes."""
    dims = [d for d in run["held"] if d in one.indexes and d not in whole]
    held = {d: [x for x in run["held"][d] if x in one.indexes[d]] for d in dims}
    one = one.sel(held).drop_vars([v for v in one.variables if v in run["lacks"] or v in OF_RUN.values()])
    one = one.drop_dims([d for d in HELD if d in one.dims and d not in run["held"]])
    if dim == "sigma":
        noisy = one["stochastic"].values.astype(bool)
        one = one.assign_coords(sigma=("estimator", np.where(noisy, float(label), np.nan)))
    one.attrs = dict(run["attrs"])
    return one


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def stacked(parts: Sequence[xr.Dataset], dim: str, labels: Sequence[Any]) -> xr.Dataset:
    """Datasets of the same variables as one along a new first dimension; the union of what they hold.

    What a part lacks is NaN, 0, False, "" or, for a status, "missing". Coordinates of a label are those of the first
    part that has it; attributes are those that all share.

    Args:
        parts: The Datasets.
        dim: Name of the new dimension.
        labels: Its labels.
    """
    indexes = {d: _union(d, [p[d].values for p in parts if d in p.coords]) for d in _dims(parts)}
    names = list(dict.fromkeys(v for p in parts for v in p.data_vars))
    wide = list(dict.fromkeys(c for p in parts for c in p.coords if p[c].ndim > 1))
    bare = [_bare(p, wide, indexes) for p in parts]
    like = {v: next(b[v] for b in bare if v in b) for v in [*names, *wide]}
    filled = [
        b.assign({v: xr.full_like(x, _fill(v, x)) for v, x in like.items() if v not in b}) for b in bare
    ]
    out = xr.concat(
        filled,
        dim=xr.Variable(dim, np.asarray(labels)),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    out = out.assign_coords({dim: np.asarray(labels)}).assign_coords(_about(parts, indexes)).set_coords(wide)
    out = out[[*names]]
    out.attrs = shared([p.attrs for p in parts])
    return out


def _dims(parts: Sequence[xr.Dataset]) -> list[Hashable]:
    return list(dict.fromkeys(d for p in parts for d in p.dims if d in p.coords))


def _union(dim: Hashable, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Labels in the order of their first appearance; numbers of seeds and copies in their own."""
    if all(np.array_equal(v, values[0]) for v in values):
        return np.asarray(values[0])
    labels = list(dict.fromkeys(x for v in values for x in v.tolist()))
    return np.asarray(sorted(labels) if dim in _SORTED else labels)


def _bare(part: xr.Dataset, wide: Sequence[Hashable], indexes: Mapping[Hashable, Any]) -> xr.Dataset:
    """A part on the grid of all, without coordinates of labels."""
    part = part.reset_coords([c for c in wide if c in part.coords])
    part = part.drop_vars([c for c in part.coords if c not in part.dims])
    fill = {v: _fill(v, x) for v, x in part.data_vars.items()}
    different = {
        d: x for d, x in indexes.items() if d in part.coords and not np.array_equal(part[d].values, x)
    }
    return part.reindex(different, fill_value=fill) if different else part


def _fill(name: Hashable, values: xr.DataArray) -> Any:
    if values.dtype.kind in "UO":
        return "missing" if name in _MISSING else ""
    return {"b": False, "i": 0, "u": 0}.get(values.dtype.kind, np.nan)


def _about(parts: Sequence[xr.Dataset], indexes: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Coordinates of labels (one dimension), and those without a dimension that all share."""
    found: dict[Hashable, Any] = {}
    for name in dict.fromkeys(c for p in parts for c in p.coords if c not in p.dims and p[c].ndim < 2):
        having = [p[name] for p in parts if name in p.coords]
        if not having[0].ndim:
            if len(having) == len(parts) and len({repr(x.item()) for x in having}) == 1:
                found[name] = having[0].item()
            continue
        (dim,) = having[0].dims
        known: dict[Any, Any] = {}
        for values in having:
            own = values.indexes[dim] if dim in values.indexes else range(values.size)
            for label, value in zip(own, values.values, strict=True):
                known.setdefault(label, value)
        found[name] = (
            dim,
            np.asarray([known[x] for x in indexes[dim]]) if dim in indexes else having[0].values,
        )
    return found


def shared(all_attrs: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Attributes that all have alike."""
    first, *others = all_attrs
    return {k: v for k, v in first.items() if all(k in o and repr(o[k]) == repr(v) for o in others)}


def common_copies(ds: xr.Dataset) -> int:
    """The last copies that every method with noise reached in every run, with all seeds that have data.

    What was not begun or failed does not count, nor a seed on its way beside others that are done (as in statistics).

    Args:
        ds: A comparison.

    Raises:
        UsageError: Nothing with noise was computed, or nothing in common.
    """
    noisy = ds.isel(estimator=np.flatnonzero(ds["stochastic"].values.astype(bool)))
    on_its_way = (noisy["status"] == "partial") & (noisy["status"] == "ok").any("seed")
    there = (noisy["sqnorm"].notnull() & ~on_its_way).transpose(..., "copies").values
    reached = there[there.any(-1)]
    if not reached.size:
        raise UsageError("nothing was computed yet in these runs; run the probes first.")
    last = reached.shape[-1] - 1 - reached[:, ::-1].argmax(-1)
    return int(ds["copies"].values[last.min()])


def unlike_sizes(ds: xr.Dataset) -> list[str]:
    """A sentence on runs that reach different numbers of copies or have different seeds; none where all are alike.

    Args:
        ds: A comparison.
    """
    dim, found = further(ds), dict[tuple[int, int], list[str]]()
    noisy = np.flatnonzero(ds["stochastic"].values.astype(bool))
    there = ds["sqnorm"].isel(estimator=noisy).notnull()
    for at, label in enumerate(ds[dim].values):
        one = there.isel({dim: at})
        copies = ds["copies"].values[one.any([d for d in one.dims if d != "copies"]).values]
        seeds = int(one.any([d for d in one.dims if d != "seed"]).sum())
        size = (int(copies.max(initial=0)), seeds)
        found.setdefault(size, []).append(f"{label:g}" if isinstance(_plain(label), float) else str(label))
    if len(found) < 2:
        return []
    sizes = [
        f"{copies:,} copies x {seeds} seeds at {dim} {', '.join(x)}" for (copies, seeds), x in found.items()
    ]
    return [f"Ceiling, half-power copies and price rest on all that each run has: {'; '.join(sizes)}."]
