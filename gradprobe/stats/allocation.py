"""Sharing out copies over the samples of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError, whole
from gradprobe.stats import register
from gradprobe.stats._allocators import Array, bernoulli, gaussian, neyman
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import jackknife, mean_se, t_quantile
from gradprobe.stats._law import fit
from gradprobe.stats._moments import Moments, moments
from gradprobe.stats._units import groups_of

ALLOCATORS = ("equal", "neyman", "flops-gaussian", "flops-bernoulli-0.3", "flops-bernoulli-0.01")

_DIMS = ("estimator", "parameter", "seed", "sample")


@register(
    "allocate",
    summary="shares of a fixed number of copies over the batch: Neyman, FLOPS's, and what they gain",
)
def allocate(
    ds: xr.Dataset, copies: int | None = None, over: Over = "layer", seed: int = 0, draws: int = 1000
) -> xr.Dataset:
    """Copies for each sample that minimise the variance of the direction, what they gain, and FLOPS's beside them.

    Sample b contributes to a direction with variance v_b per copy (tau_b summed over the parameters of a layer or of
    the model). With n_b copies of noise of its own it adds v_b/n_b to the direction's variance. For
    ``copies`` x B copies in all:

    * **equal**: n_b = ``copies``.
    * **neyman**: n_b proportional to sqrt(v_b), the least possible sum; whole numbers, at least 1 (a sample without a
      copy would be missing from the direction). Estimates of v_b below 0 count as 0.
    * **flops-gaussian**, **flops-bernoulli-p**: random allocations from the losses alone, on average over ``draws``.
      They may give a sample nothing: its contribution is missing, which is bias and not variance: ``missed`` says
      how often, ``missing`` how much (E of the sum of |mu_b|^2 over samples without a copy, to be held against
      ``variance``; products of different samples are not known and left out). Each sample's contributions are
      averaged over its own copies here. FLOPS's code divides by the average number instead, which weights samples
      by their copies: the mean is another direction then.

    **gain** = variance of equal shares / variance of these. Shares that are judged by the estimates that they were
    chosen from look better than they are (noise in v_b looks like samples that differ). So Neyman's are
    cross-fitted: chosen from the other seeds, judged on the seed left out; what is stored as ``allocated`` is chosen
    from all seeds. The interval is a jackknife over seeds (from three on); one seed gives no gain. The gain is a
    little too low by that: one seed fewer is behind the shares.

    **What is assumed**: noise of its own for each sample (``share=sample``, the default of ``lr``). Where a draw's
    noise is common to the batch (``es``) different numbers of copies need draws of their own, v_b is right for
    those, and ``gain`` is against equal shares of *independent* noise; ``common`` says what that changes: per-copy
    variance of the measured direction / sum of v_b, 1 (up to noise) for independent noise. Allocations are for one
    layer noisy at a time; under joint injection all layers share the copies: use ``over="model"``. Copies of a sample
    cost the same for all.

    Source: Neyman, Journal of the Royal Statistical Society 97 (1934) 558-625; FLOPS, arXiv 2410.05966, whose
    published code is what is described.

    Args:
        ds: Results of a probe with ``per_sample=True``.
        copies: Copies for each sample on average; default: the last stored copies.
        over: ``parameter``, ``layer`` (default), ``model`` (one allocation for all layers), or groups of layers
            as for ``cosine`` (one for each group).
        seed: Of the random allocations.
        draws: How many of them are averaged.

    Returns:
        Dataset over (estimator, parameter | layer | group, allocator): ``allocated`` (also sample; copies),
            ``variance`` (of the direction, squared units of the gradient; neyman's cross-fitted), ``gain`` with
            ``_low`` and ``_high`` (95 %), ``missing`` and ``missed`` (share of samples without a copy); without
            allocator: ``tau`` (also sample; v_b), ``common`` and ``state`` ("ok", "too few seeds", "no variance",
            "refused" or "missing"); and ``sample_loss``.

    Raises:
        UsageError: The results hold nothing for samples, or something is unknown.
    """
    if "sample_sqnorm" not in ds:
        raise UsageError(
            "the results hold nothing for single samples; probe with per_sample=True (--per-sample), into the same "
            "out= if there is one."
        )
    draws = whole("draws", draws)
    copies = whole("copies", int(ds["copies"].values[-1]) if copies is None else copies)
    m = moments(ds, over, str(ds["reference"].values[0]))
    apart = int(ds.attrs["block"]) / 2 * (ds["sample_sqnorm"] - ds["sample_product"])
    v, losses = _summed(ds, apart, over), np.asarray(ds["sample_loss"].values, dtype=np.float64)
    counts = _from_losses(losses, copies, whole("seed", seed, 0), draws)
    found = _judged(v, counts, copies)
    mean = _mean(v)
    state = _states(m, mean, np.isfinite(v[..., 0]).sum(-1))
    chosen = neyman(np.nan_to_num(mean), copies * losses.size)
    averages = [counts[a].mean(0) for a in ALLOCATORS[2:]]
    allocated = np.stack(
        [np.full_like(mean, copies), chosen, *(np.broadcast_to(a, mean.shape) for a in averages)], axis=2
    )
    there = np.isin(state, ("ok", "too few seeds"))
    out = xr.Dataset()
    facts: dict[str, Any] = {"copies": copies, "draws": draws, "random_seed": seed, "level": 0.95}
    out["allocated"] = m.label(
        np.where(there[..., None, None], allocated, np.nan),
        "allocator",
        "sample",
        long_name="copies of a sample",
    )
    for name, value in found.items():
        out[name] = m.label(np.where(there[..., None], value, np.nan), "allocator")
    never = np.stack([np.zeros(losses.size)] * 2 + [(counts[a] == 0).mean(0) for a in ALLOCATORS[2:]])
    gone = np.where(there[..., None], _mean(_summed(ds, ds["sample_product"], over)) @ never.T, np.nan)
    out["missing"] = m.label(gone, "allocator", long_name="E of |mu_b|^2 of samples without a copy")
    out["missed"] = ("allocator", never.mean(-1), {"long_name": "share of samples without a copy"})
    out["tau"] = m.label(mean, "sample", long_name="variance per copy of a sample's contribution")
    out["common"] = m.label(_common(m, mean), long_name="tau / sum of tau_b")
    out["state"] = m.label(state)
    out["sample_loss"] = ds["sample_loss"]
    out = out.assign_coords(allocator=list(ALLOCATORS), sample=ds["sample"].values)
    out.attrs = m.facts | facts
    return out


def _summed(ds: xr.Dataset, values: xr.DataArray, over: Over) -> Array:
    """Sums over parameters ``[estimator, part, seed, sample]``; a refused layer adds nothing to a sum of layers."""
    found = values.transpose(*_DIMS).values
    status = ds["status"].transpose(*_DIMS[:3]).values
    some = (status == "ok").any(-1, keepdims=True)
    found = np.where(((status == "partial") & some)[..., None], np.nan, found)
    if over not in ("parameter", "layer"):
        refused = (status == "refused").all(-1)
        found = np.where(refused[..., None, None], 0.0, found)
    return np.stack([found[:, g].sum(1) for g in groups_of(ds, over)[1]], axis=1).astype(np.float64)


def _mean(values: Array) -> Array:
    """Mean over seeds, ``[estimator, part, sample]``."""
    return mean_se(np.moveaxis(values, 2, -1))[0]


def _common(m: Moments, mean: Array) -> Array:
    """Variance per copy of the direction over the sum of v_b, ``[estimator, part]``; NaN below two blocks."""
    if m.copies[-1] < 2 * m.block:
        return np.full(mean.shape[:-1], np.nan)
    with np.errstate(all="ignore"):
        return np.asarray(mean_se(fit(m).t)[0] / mean.sum(-1))


def _from_losses(losses: Array, copies: int, seed: int, draws: int) -> dict[str, npt.NDArray[np.int64]]:
    """Allocations of FLOPS's allocators ``[draws, B]``, each with randomness of its own."""
    rngs = [np.random.default_rng([seed, number]) for number in range(3)]
    made = [
        gaussian(losses, copies, rngs[0], draws),
        bernoulli(losses, copies, rngs[1], draws, 0.3),
        bernoulli(losses, copies, rngs[2], draws, 0.01),
    ]
    return dict(zip(ALLOCATORS[2:], made, strict=True))


def _judged(v: Array, counts: dict[str, npt.NDArray[np.int64]], copies: int) -> dict[str, Array]:
    """Variance, and gain with interval, ``[estimator, part, allocator]``."""
    seeds = np.isfinite(v[..., 0])
    known = np.where(seeds[..., None], v, 0.0)
    behind = np.maximum(seeds.sum(-1, keepdims=True) - 1, 1)[..., None]
    others = (known.sum(2, keepdims=True) - known) / behind
    inverse = [np.full(v.shape[-1], 1 / copies), 1 / neyman(others, copies * v.shape[-1])]
    for made in counts.values():
        inverse.append(np.where(made > 0, 1 / np.maximum(made, 1), 0.0).mean(0))
    variance = [np.where(seeds, (known * x).sum(-1), np.nan) for x in inverse]
    alone = (seeds.sum(-1) < 2)[..., None]
    variance[1] = np.where(alone, np.nan, variance[1])  # nothing to choose the shares from
    rows = []
    for per_seed in variance:
        value, se = jackknife(lambda equal, own: equal / own, variance[0], per_seed)
        mean, _, count = mean_se(per_seed)
        half = t_quantile(0.975, count) * se
        value = np.where(mean > 0, value, np.nan)
        rows.append((mean, value, value - half, value + half))
    names = ("variance", "gain", "gain_low", "gain_high")
    return {name: np.stack([row[i] for row in rows], axis=-1) for i, name in enumerate(names)}


def _states(m: Moments, mean: Array, seeds: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    conditions = [~m.served, ~np.isfinite(mean).any(-1), (mean <= 0).all(-1), seeds < 2]
    names = ["refused", "missing", "no variance", "too few seeds"]
    return np.select(conditions, names, default="ok").astype("<U13")
