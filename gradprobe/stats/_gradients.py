"""The backprop gradients of batches from a labelled Dataset, and the alignment law of each batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats._batches import Gradients
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import Array
from gradprobe.stats._units import groups_of
from gradprobe.stats.alignment_law import alignment
from gradprobe.store.assemble import attribute


def law_of_each(ds: xr.Dataset, over: Over, scale: str, reference: str = "bp") -> list[xr.Dataset]:
    """The alignment law of each batch, or of the only one.

    Args:
        ds: Results, with or without a dimension ``batch``.
        over: ``parameter``, ``layer`` or ``model``.
        scale: ``raw`` or ``unit-gain``.
        reference: What it is held against.
    """
    runs = [ds.isel(batch=b) for b in range(ds.sizes["batch"])] if "batch" in ds.dims else [ds]
    return [alignment(run, over=over, reference=reference, scale=scale) for run in runs]


def read_gradients(ds: xr.Dataset, over: Over) -> Gradients:
    """Products of the batches' gradients, summed over parameters into parts.

    Args:
        ds: Results.
        over: As of ``alignment``, whose parts these are: for the model, layers that every estimator refuses are left
            out.

    Raises:
        UsageError: There is one batch and no reference "dataset", or they are not the results of a probe.
    """
    if not isinstance(ds, xr.Dataset) or "reference_dot" not in ds:
        raise UsageError("data_or_copies needs the results of gp.probe(..., batches=...).")
    groups = _groups(ds, over)
    dot = full = None
    share = 0.0
    about = attribute(ds, "dataset")
    if about and "dataset" in ds["reference"].values:
        dot = _summed(_known(ds, "reference_dot", "dataset"), groups)
        full = _summed(_known(ds, "reference_sqnorm", "dataset"), groups)[:, 0]
        share = float(ds.attrs["batch_size"]) / float(about["samples"])
    if "batch" in ds.dims:
        if ds.sizes["batch"] == 1 and dot is None:
            raise UsageError(
                "one batch is done so far; at least two are needed, or reference=('bp', 'dataset')."
            )
        chosen = ds["batch_product"].sel(other_batch=ds["batch"].values)
        table = chosen.transpose("parameter", "batch", "other_batch").values
        product = np.stack([table[g].sum(0) for g in groups])
        if dot is None:
            return Gradients(np.einsum("pbb->pb", product), product)
        return Gradients(_summed(_known(ds, "reference_sqnorm", "bp"), groups), product, dot, full, share)
    if dot is None:
        raise UsageError(
            "one batch alone does not say how batches differ; probe with batches=8, or reference=('bp', 'dataset')."
        )
    return Gradients(_summed(_known(ds, "reference_sqnorm", "bp"), groups), None, dot, full, share)


def _groups(ds: xr.Dataset, over: Over) -> list[npt.NDArray[np.int64]]:
    """Indices of the parameters of each part; layers that every estimator refuses are no part of a sum."""
    _, groups = groups_of(ds, over)
    if over in ("parameter", "layer"):
        return groups
    others = [d for d in ds["status"].dims if d != "parameter"]
    served = (ds["status"] != "refused").any(others).values
    return [g[served[g]] for g in groups]


def _summed(values: Array, groups: list[npt.NDArray[np.int64]]) -> Array:
    return np.stack([values[g].sum(0) for g in groups])


def _known(ds: xr.Dataset, name: str, reference: str) -> Array:
    """One number for each parameter and batch ``[parameter, batch]``: whichever estimator and seed has it."""
    var = ds[name].sel(reference=reference)
    if "batch" not in var.dims:
        var = var.expand_dims("batch")
    cells = var.transpose("parameter", "batch", "estimator", "seed").values
    flat = cells.reshape(*cells.shape[:2], -1)
    first = np.isfinite(flat).argmax(-1)
    return np.asarray(np.take_along_axis(flat, first[..., None], axis=-1)[..., 0], dtype=np.float64)
