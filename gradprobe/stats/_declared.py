"""The law of methods that declare what their mean is, with that mean taken from the reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats._intervals import Array
from gradprobe.stats._offers import as_declared, with_measured_mean
from gradprobe.stats._smoothed import smoothed


def declared_law(
    ds: xr.Dataset, layers: xr.Dataset, law: xr.Dataset, reference: str
) -> tuple[xr.Dataset, npt.NDArray[np.bool_]]:
    """A fitted law in which A and X are those of the declared mean, where the run does not contradict it.

    A method that declares the smoothed gradient has it as its mean. Against backprop its ceiling is then that of the
    reference "smoothed" (which must be in the run, and told from its noise); against "smoothed" it is 1. Both are
    known far better than from the method's own noisy moments: T alone is the method's. Not where its moments
    contradict ceiling or gain (as in ``plan``: t tests, 5 % over all layers of a method), and for the model only
    where no layer does.

    Args:
        ds: Results.
        layers: ``alignment`` of the layers.
        law: ``alignment`` of the layers or of the model.
        reference: What estimates are held against.

    Returns:
        The law, and where A and X were replaced, shaped as ``law["exact"]``.
    """
    parts = {k: layers[k].transpose("estimator", "layer", "seed").values for k in "AXTG"}
    if reference == "bp":
        mask = with_measured_mean(ds, dict(parts), reference)
    else:
        mask = as_declared(ds, parts, reference)
    own: dict[str, Array] = {k: law[k].transpose(..., "seed").values for k in "AXG"}
    if law.attrs["over"] == "model":
        served = layers["state"].transpose("estimator", "layer").values != "refused"
        mask = (mask | ~served).all(1) & served.any(1)
    mask = mask & ~law["exact"].values
    if reference == "bp" and mask.any():
        mean = smoothed(ds, law.attrs["over"], own["A"])
        mask = mask & (mean.state == "resolved")
        instead = (mean.along, mean.square)
    else:
        instead = (own["G"], own["G"])
    replaced = {}
    for name, values in zip("AX", instead, strict=True):
        like = law[name].transpose(..., "seed")
        replaced[name] = like.copy(data=np.where(mask[..., None], values, own[name]))
    return law.assign(replaced), np.asarray(mask)
