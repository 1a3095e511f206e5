"""``concat``: runs of one model at several checkpoints, or at several sigmas, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError, described, one_of
from gradprobe.core.spec import canonical_json
from gradprobe.store.along import HELD, OF_RUN, shared, stacked
from gradprobe.store.batches import joined_notes, read_batches
from gradprobe.store.comparable import Compared, check_different, checked, common_references
from gradprobe.store.paths import FURTHER, MAKERS
from gradprobe.store.run import open_run
from gradprobe.store.run_labels import given_labels, labels_of


def concat(
    runs: Iterable[xr.Dataset | str | Path | Compared],
    dim: str = "checkpoint",
    labels: Sequence[Any] | None = None,
    *,
    other_batches: bool = False,
) -> xr.Dataset:
    """Put runs of the same model side by side: at several checkpoints, or at several sigmas.

    The result has the variables of a run with a further dimension ``checkpoint`` or ``sigma``. Every statistic of
    ``gp.stats`` takes it and is that of each run alone; ``gp.plots.training(ds)`` draws quality along it. What is
    about one run (``gp.plan``, the other figures) wants ``ds.sel(checkpoint=...)``, which keeps the copies of all:
    where its own run ends earlier, Acc. and Sta. want a range.

    Checkpoints are comparable because the batch is the same; intervals are for this batch, at each checkpoint. Where
    runs share the root seed (0 unless it was given), a seed is the same noise at every checkpoint, since the key
    of a stream of noise does not hold the weights: differences between checkpoints are **paired**, seed by seed. That
    may be worth little: from one to the next of epochs 0, 1, 3, 10 and 30 of a ResNet-5 the variance of a difference
    of cosines was 0.7 to 1.0 of what independent noise gives (lr, alr, es; 5 seeds). Intervals of single checkpoints
    do not show it.

    **Along sigma** the estimators are called by their method, "lr" for "lr(sigma=0.1)", and sigma is where they lie:
    ``ds.sel(sigma=0.1, estimator="lr")``. Each run may hold several sigmas (``gp.sigma_sweep`` is one run of all),
    also different ones for different methods. A method without noise is there at every sigma of its run.

    Estimators, seeds and copies may differ from run to run: what one lacks is NaN, with status "missing". Parameters
    and block must be the same. Only references that all runs have are kept. What else differs (the root seed) is
    said in ``ds.attrs["comparison"]``, a JSON list of sentences.

    Args:
        runs: Results, run directories or exported files, in the order in which they are to lie; of several batches
            as well, if all have the same ones.
        dim: ``checkpoint`` (default) or ``sigma``.
        labels: A name or number for each run along ``checkpoint``. By default what the checkpoints (or else the
            runs' folders) are called; the number if they differ in one number alone, such as an epoch or step, so
            that a figure's axis is to scale.
        other_batches: Allow runs on different batches; then a difference may be the batch's.

    Returns:
        The Dataset (:mod:`gradprobe.store.along`).

    Raises:
        UsageError: There are fewer than two runs, one is none, two are the same, or they differ in model, loss,
            block or (unless it was allowed) batch.
    """
    one_of("dim", dim, FURTHER)
    found = opened(runs)
    if dim == "sigma":
        if labels is not None:
            raise UsageError("runs along sigma are labelled by their sigmas; leave labels out.")
        return _along_sigma(found, other_batches)
    notes = checked(found, dim, other_batches)
    given = labels_of([run.ds for run in found], [run.place for run in found])
    return _joined(found, dim, given if labels is None else given_labels(labels, len(found)), notes)


def dimension_of(runs: Sequence[Compared]) -> str:
    """``sigma`` if all runs are of the same weights, else ``checkpoint``."""
    weights = {canonical_json(run.known("identity").get("model", i)) for i, run in enumerate(runs)}
    return "sigma" if len(weights) == 1 else "checkpoint"


def opened(runs: Any) -> list[Compared]:
    """Runs that are given as results or paths, each with a name for messages.

    Raises:
        UsageError: One is no run of a probe, or the same is given twice.
    """
    if isinstance(runs, (str, Path, xr.Dataset)) or not isinstance(runs, Iterable):
        raise UsageError(f"give a list of runs to put side by side, not {described(runs)}.")
    found = []
    for number, run in enumerate(runs, 1):
        if isinstance(run, Compared):
            found.append(run)
        elif isinstance(run, xr.Dataset):
            found.append(Compared(str(run.attrs.get("path") or f"run {number}"), run))
        elif isinstance(run, (str, Path)):
            several = read_batches(Path(run)) if Path(run).is_dir() else None
            marks = tuple(several.batches) if several else ()
            found.append(Compared(str(run), open_run(run), os.path.realpath(run), marks))
        else:
            raise UsageError(f"run {number} is neither results nor the path of a run, but {described(run)}.")
        _check_run(found[-1])
    return found


def _check_run(run: Compared) -> None:
    dims = ("estimator", "parameter", "seed", "copies", "reference")
    if run.ds.attrs.get("kind") in MAKERS or "dot" not in run.ds:
        raise UsageError(f"{run.name} holds no results of gp.probe(...); give runs of a probe.")
    if any(dim in run.ds.dims for dim in FURTHER):
        raise UsageError(f"{run.name} is a comparison already; give the runs that it was made of.")
    lost = [dim for dim in dims if dim not in run.ds.dims]
    if lost:
        raise UsageError(
            f"{run.name} has no dimension {lost[0]!r}; select with a list, ds.sel({lost[0]}=[...])."
        )


def _along_sigma(runs: Sequence[Compared], other_batches: bool) -> xr.Dataset:
    """A comparison along sigma, of one run for each."""
    for i, run in enumerate(runs):
        for other in runs[:i]:
            check_different(other, run, "sigma")
    cut = [one for run in runs for one in _by_sigma(run)]
    sigmas = sorted({sigma for sigma, _ in cut})
    if len(sigmas) < 2:
        raise UsageError(
            f"all runs are of one sigma ({sigmas[0]:g}) and of the same weights; give runs of several sigmas, or of "
            "several checkpoints."
            if sigmas
            else "no estimator of these runs has a sigma of its own."
        )
    notes: list[str] = []
    if len(runs) > 1:
        notes = checked(runs, "sigma", other_batches)
    for sigma in sigmas:
        names = [run.name for at, run in cut if at == sigma]
        if len(names) > 1:
            raise UsageError(
                f"{names[0]} and {names[1]} both have sigma={sigma:g}; probe their methods into one run, to "
                "which estimators can be added, or leave one out."
            )
    in_order = sorted(cut, key=lambda pair: pair[0])
    return _joined([run for _, run in in_order], "sigma", sigmas, notes)


def _by_sigma(run: Compared) -> list[tuple[float, Compared]]:
    """The estimators of each sigma, with those that have no noise, called by their methods."""
    ds = run.ds
    if not {"sigma", "method"} <= {str(c) for c in ds.coords} or not ds["sigma"].ndim:
        raise UsageError(
            f"{run.name} does not say which sigma each estimator has; open the run itself again."
        )
    sigma, noisy = ds["sigma"].values.astype(float), ds["stochastic"].values.astype(bool)
    unknown = noisy & ~np.isfinite(sigma)
    if unknown.any():
        raise UsageError(
            f"{ds['estimator'].values[unknown][0]} of {run.name} has no single sigma; leave it out, "
            "ds.sel(estimator=[...])."
        )
    found = []
    for value in sorted(set(sigma[noisy].tolist())):
        one = ds.isel(estimator=np.flatnonzero(~noisy | (sigma == value)))
        one = one.assign_coords(estimator=one["method"].values)
        found.append((float(value), replace(run, ds=one)))
    return found


def _joined(runs: Sequence[Compared], dim: str, labels: Sequence[Any], notes: Sequence[str]) -> xr.Dataset:
    references = common_references(runs)
    parts = []
    for run in runs:
        part = run.ds.sel(reference=references)
        for attr, name in OF_RUN.items():
            part[name] = ((), float(run.ds.attrs.get(attr, np.nan)))
        parts.append(part.drop_vars(dim, errors="ignore"))
    names = {v for part in parts for v in part.data_vars}
    ds = stacked(parts, dim, labels)
    told = [
        {
            "label": label,
            "attrs": dict(run.ds.attrs),
            "held": {d: part[d].values.tolist() for d in HELD if d in part.coords},
            "lacks": sorted(str(v) for v in names if v not in part),
        }
        for run, part, label in zip(runs, parts, labels, strict=True)
    ]
    ds.attrs = {k: v for k, v in shared([run.ds.attrs for run in runs]).items() if k not in OF_RUN}
    same = [
        shared([run.known("identity") for run in runs]),
        shared([run.known("configuration") for run in runs]),
    ]
    ds.attrs |= {k: canonical_json(v) for k, v in zip(("identity", "configuration"), same, strict=True) if v}
    ds.attrs |= joined_notes([run.ds for run in runs])
    ds.attrs |= {"runs": json.dumps(told, default=_jsonable), "comparison": json.dumps(list(notes))}
    return ds


def _jsonable(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
