"""What is known of the smoothed gradient: its length and its product with backprop's, per seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import Array, mean_se, t_quantile
from gradprobe.stats._law import TWO_SIDED
from gradprobe.stats._moments import check_dims, moments
from gradprobe.store.paths import check_probed

NEEDED = ("bp", "smoothed")


@dataclass(frozen=True)
class Smoothed:
    """Moments of the smoothed gradient g_s, without bias; a seed is NaN in both or in none.

    Attributes:
        along: <g_bp, g_s>, ``[..., seed]``.
        square: |g_s|^2, ``[..., seed]``.
        state: Whether |g_s|^2 is told from its noise, ``[...]``: "resolved" (mean > 2 t_{.975, S-1} se),
            "unresolved", "too few seeds" (values without intervals), "undefined" (zero), "none" (not there).
    """

    along: Array
    square: Array
    state: np.ndarray


def check_references(ds: xr.Dataset, what: str) -> None:
    """Refuse results that were not held against both backprop and the smoothed gradient.

    Args:
        ds: Results.
        what: Name of the statistic, for the sentence.

    Raises:
        UsageError: One of the two is not there.
    """
    check_probed(ds)
    have = [str(r) for r in np.atleast_1d(ds["reference"].values)] if "reference" in ds.coords else []
    if not set(NEEDED) <= set(have) or "reference" not in ds.dims:
        raise UsageError(
            f"{what} needs both references and these results have {' and '.join(have) or 'none'}; probe again "
            "with reference=('bp', 'smoothed') (with the same out= the run is added to)."
        )


def with_both(ds: xr.Dataset) -> xr.Dataset:
    """Results without the seeds that lack the smoothed reference, where other seeds have it.

    Parts of one sum must come from the same seeds. Where no seed has it all seeds stay.

    Raises:
        UsageError: The results have lost a dimension.
    """
    check_dims(ds, "estimator", "parameter", "seed", "copies")
    there = ds["reference_dot"].sel(reference="smoothed").notnull()
    keep = there | ~there.any("seed")
    return ds if bool(keep.all()) else ds.assign(sqnorm=ds["sqnorm"].where(keep))


def smoothed(ds: xr.Dataset, over: Over, known: Array) -> Smoothed:
    """Moments of the smoothed gradient over parameters, layers or the model.

    An estimator without noise smooths nothing: its smoothed gradient is backprop's. So is, within a model, that of
    a layer that the estimator refuses: what it misses there is no smoothing. A layer that every estimator
    refuses is not probed and left out.

    Args:
        ds: Results with both references.
        over: As for ``moments``.
        known: Anything ``[..., seed]`` that is NaN for seeds to leave out.
    """
    shape = known.shape
    along, square = (np.where(np.isfinite(known), _sums(ds, over, of).reshape(shape), np.nan) for of in _OF)
    gone = ~np.isfinite(along + square)
    along, square = (np.where(gone, np.nan, v) for v in (along, square))
    mean, se, count = mean_se(square)
    q = t_quantile(TWO_SIDED, count)
    sure = (mean > 2 * q * se) | ((se == 0) & (mean > 0))
    zero = (np.nan_to_num(square) == 0).all(-1)
    conditions = [count == 0, zero, sure, np.isnan(q)]
    state = np.select(conditions, ["none", "undefined", "resolved", "too few seeds"], default="unresolved")
    return Smoothed(along, square, state)


_OF = ("along", "square")


def _sums(ds: xr.Dataset, over: Over, of: str) -> Array:
    """One of the two moments ``[estimator, part, seed]``, summed by ``moments`` as every other is."""
    per_seed = ("estimator", "parameter", "seed")
    names = ("reference_sqnorm", "reference_block_sqnorm", "reference_blocks")
    one = ds["reference_dot"].sel(reference="smoothed").transpose(*per_seed)
    found = [ds[name].sel(reference="smoothed").transpose(*per_seed).values for name in names]
    if of == "along":
        found = [one.values, one.values, np.ones(one.shape)]
    own, plain = _backprop(ds, per_seed)
    instead = (own, own, np.ones(one.shape))
    put = [np.where(plain, v, f) for v, f in zip(instead, found, strict=True)]
    # every layer is served now, and one stored point is enough: only the reference is read
    thin = ds.isel(copies=[0]).sel(reference=["smoothed"])
    changed: dict[str, Any] = {
        n: (("reference", *per_seed), v[None]) for n, v in zip(names, put, strict=True)
    }
    thin = thin.assign(changed | {"status": (per_seed, np.full(one.shape, "ok"))})
    return moments(thin, over, "smoothed").reference


def _backprop(ds: xr.Dataset, dims: tuple[str, ...]) -> tuple[Array, np.ndarray]:
    """|g_bp|^2 and where it stands for the smoothed gradient's, both ``[estimator, parameter, seed]``."""
    own = ds["reference_sqnorm"].sel(reference="bp").transpose(*dims).values
    refused = (ds["status"].transpose(*dims).values == "refused").all(-1, keepdims=True)
    usual = mean_se(np.moveaxis(own, 1, -1).reshape(-1, own.shape[1]).T)[0][None, :, None]
    filled = np.where(refused.all(0), 0.0, np.where(np.isfinite(own), own, usual))
    still = ~ds["stochastic"].values.astype(bool)[:, None, None]
    return filled, np.broadcast_to(refused | still, own.shape)
