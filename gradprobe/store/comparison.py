"""``concat``: runs of one model at several checkpoints, or at several sigmas, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError, described, one_of
from gradprobe.core.spec import canonical_json
from gradprobe.store.along import HELD, OF_RUN, shared, stacked
from gradprobe.store.assemble import attribute
from gradprobe.store.batches import joined_notes, read_batches
from gradprobe.store.paths import FURTHER, MAKERS
from gradprobe.store.run import open_run
from gradprobe.store.run_labels import given_labels, labels_of

_FUNCTION = ("loss", "mode", "precision", "output")
"""Parts of a configuration that belong to the function that is probed."""


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        name: What messages call it.
        ds: Its results.
        place: Where they were read from; "" for results in memory.
        batches: Fingerprints of its batches, where it has several.
    """

    name: str
    ds: xr.Dataset
    place: str = ""
    batches: tuple[str, ...] = ()

    def known(self, name: str) -> dict[str, Any]:
        """A nested attribute; empty if there is none."""
        return dict(attribute(self.ds, name) or {})


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
    of a stream of noise does not hold the weights: differences between checkpoints are **paired**, seed by seed, and
    much of the noise cancels in them. Intervals of single checkpoints do not show that.

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
    notes = _checked(found, dim, other_batches)
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


def _checked(runs: Sequence[Compared], dim: str, other_batches: bool) -> list[str]:
    """What a reader must know of the runs' differences.

    Raises:
        UsageError: They cannot be compared.
    """
    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least two runs, not {len(runs)}.")
    for i, run in enumerate(runs):
        for other in runs[:i]:
            _check_different(other, run, dim)
    notes: dict[str, None] = {}
    for run in runs[1:]:
        _check_alike(runs[0], run, dim, other_batches)
        notes |= dict.fromkeys(_differences(runs[0], run, dim))
    if dim == "checkpoint" and any(a.known("identity") == {} for a in runs):
        notes["A run does not say which batch it is of; comparisons hold for the same batch only."] = None
    return [*notes, *_references(runs)]


def _check_different(first: Compared, run: Compared, dim: str) -> None:
    """Refuse the same run twice."""
    same = first.ds is run.ds or (first.place != "" and first.place == run.place)
    if same:
        raise UsageError(f"{run.name} is given twice; give each run once.")
    mine, others = run.known("identity"), first.known("identity")
    if dim == "checkpoint" and mine and mine.get("model") == others.get("model"):
        if mine.get("batch") == others.get("batch"):
            raise UsageError(
                f"{first.name} and {run.name} are of the same weights on the same batch; give runs of different "
                "checkpoints, or dim='sigma' for runs of one at several sigmas."
            )


def _check_alike(first: Compared, run: Compared, dim: str, other_batches: bool) -> None:
    """Refuse runs that cannot be compared."""
    what = _other_model(first, run)
    mine, others = run.known("identity"), first.known("identity")
    both = mine.keys() & others.keys()
    if what is None and dim == "sigma" and "model" in both and mine["model"] != others["model"]:
        what = "other weights (runs along sigma must be of one checkpoint)"
    if what is None and run.ds.attrs.get("block") != first.ds.attrs.get("block"):
        what = f"another block ({run.ds.attrs.get('block')} copies, not {first.ds.attrs.get('block')})"
    if what is not None:
        raise UsageError(f"{run.name} and {first.name} cannot be compared: the first has {what}.")
    if ("batch" in run.ds.dims) != ("batch" in first.ds.dims):
        raise UsageError(
            f"one of {run.name} and {first.name} holds several batches; choose one of them, ds.isel(batch=0)."
        )
    if not other_batches and _other_batch(first, run):
        raise UsageError(
            f"{run.name} and {first.name} are of different batches, so a difference may be the batch's; probe the "
            "same one, or allow it with other_batches=True (--other-batches)."
        )
    if "loss" in both and mine["loss"] != others["loss"]:
        raise UsageError(
            f"{run.name} and {first.name} cannot be compared: the first has {_other_loss(first, run)}."
        )


def _other_loss(first: Compared, run: Compared) -> str:
    """What of a run's function of the output is not as the first's."""
    sizes = [r.ds.attrs.get("batch_size") for r in (run, first)]
    if sizes[0] != sizes[1]:
        return f"another size of batch ({sizes[0]}, not {sizes[1]})"
    own, theirs = run.known("configuration"), first.known("configuration")
    keys = [k for k in _FUNCTION if k in own and k in theirs and own[k] != theirs[k]]
    return f"another {keys[0]} ({own[keys[0]]}, not {theirs[keys[0]]})" if keys else "another loss"


def _other_batch(first: Compared, run: Compared) -> bool:
    mine, others = (r.known("identity").get("batch") for r in (run, first))
    common = min(len(run.batches), len(first.batches))
    if run.batches[:common] != first.batches[:common]:
        return True
    return mine is not None and others is not None and mine != others


def _other_model(first: Compared, run: Compared) -> str | None:
    """What of a run's model is not as the first's; None if it can be the same model."""
    asked, named = ([r.known("configuration").get(k) for k in ("model", "model_args")] for r in (run, first))
    if asked[0] and named[0] and asked != named:
        same = asked[0] == named[0]
        return f"another model ({asked[1] if same else asked[0]}, not {named[1] if same else named[0]})"
    mine, others = (_layers(r.ds) for r in (run, first))
    for name in (x for x in others if x not in mine):
        return f"other layers (no {name!r})"
    for name in (x for x in mine if x not in others):
        return f"other layers ({name!r} too)"
    if list(mine) != list(others):
        return "its layers in another order"
    return next((f"another layer {name!r}" for name in mine if mine[name] != others[name]), None)


def _layers(ds: xr.Dataset) -> dict[str, Any]:
    """Name of each layer -> what it is: kind, parameters and their shapes."""
    told = attribute(ds, "layers") or []
    shapes = {x["name"]: [x.get("kind"), x.get("shapes")] for x in told}
    found: dict[str, Any] = {}
    for layer, parameter, numel in zip(
        ds["layer"].values, ds["parameter"].values, ds["numel"].values, strict=True
    ):
        found.setdefault(str(layer), [shapes.get(str(layer))]).append((str(parameter), int(numel)))
    return found


def _differences(first: Compared, run: Compared, dim: str) -> list[str]:
    """Sentences on what differs and does not forbid a comparison."""
    said = []
    mine, others = run.known("identity"), first.known("identity")
    if _other_batch(first, run):
        said.append("The runs are of different batches: a difference between them may be the batch's.")
    for key, name in (("root_seed", "root seed"), ("noise_version", "version of the noise")):
        if key in mine and key in others and mine[key] != others[key]:
            said.append(
                f"{run.name} has another {name} ({mine[key]}) than {first.name} ({others[key]}): their noise is not "
                "the same, so differences are not paired."
            )
    return said


def _references(runs: Sequence[Compared]) -> list[str]:
    """A sentence on references that are not kept, because a run lacks them or has another.

    Raises:
        UsageError: No reference is left.
    """
    kept = common_references(runs)
    if not kept:
        raise UsageError(
            f"{runs[-1].name} shares no reference with {runs[0].name}; probe both with reference='bp'."
        )
    gone = dict.fromkeys(str(r) for run in runs for r in run.ds["reference"].values if str(r) not in kept)
    return [f"Reference {name!r} is not in all runs, or not of the same data, and left out." for name in gone]


def common_references(runs: Sequence[Compared]) -> list[str]:
    """References that all runs have; "dataset" only where it is of the same data."""
    sets = [[str(r) for r in run.ds["reference"].values] for run in runs]
    data = {canonical_json((run.known("dataset")).get("digest")) for run in runs}
    kept = [r for r in sets[0] if all(r in s for s in sets)]
    return [r for r in kept if r != "dataset" or len(data) == 1]


def _along_sigma(runs: Sequence[Compared], other_batches: bool) -> xr.Dataset:
    """A comparison along sigma, of one run for each."""
    for i, run in enumerate(runs):
        for other in runs[:i]:
            _check_different(other, run, "sigma")
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
        notes = _checked(runs, "sigma", other_batches)
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
