"""The alignment law: how much of what is missing is bias, and what quality costs in copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import Array, fieller, fieller_lower
from gradprobe.stats._law import ENOUGH_BLOCKS, ENOUGH_SEEDS, TWO_SIDED, Fit, check_boundary, fit
from gradprobe.stats._moments import moments

Triple = tuple[Array, Array, Array]

STATES = (
    "resolved",
    "bounded",
    "unresolved",
    "too few seeds",
    "too few copies",
    "undefined",
    "gain unresolved",
    "refused",
    "missing",
)

TOO_LITTLE = (
    f"fewer than {ENOUGH_SEEDS} seeds or {ENOUGH_BLOCKS} blocks have too little to say: intervals are wide there and "
    "were not checked for every kind of noise"
)

_LONG = {
    "ceiling": "cosine with endlessly many copies",
    "half_copies": "copies at which cos^2 is half its ceiling",
    "price": "copies / (1/cos^2 - 1/ceiling^2)",
    "gain": "length along the reference / reference",
    "A": "<mu, g> per seed",
    "X": "|mu|^2 per seed",
    "T": "per-copy variance tau per seed",
    "G": "|g|^2 per seed",
}


@register("alignment", summary="alignment law: ceiling, half-power copies, price and gain, with intervals")
def alignment(
    ds: xr.Dataset,
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
    copies: int | None = None,
    products: bool = True,
) -> xr.Dataset:
    """Ceiling, half-power copies, price and gain of every estimator and layer.

    cos(n) = rho sqrt(n/(n + kappa)), 1/cos^2(n) = 1/rho^2 + price/n, from A, X, T averaged over seeds first
    (formulas in ``_law.py``): ceiling rho = A/sqrt(G X) (below 1: bias that no copies remove), half_copies
    kappa = T/X, price = kappa/rho^2 = T G/A^2 (resolved much earlier than kappa; equal to it where rho = 1),
    gain = A/G. G is |g|^2, without bias where the reference is noisy (see ``cosine``).

    **state**, with z = mean(X)/se(X) and q = t_{.975, S-1}: "unresolved" z <= q, "bounded" q < z <= 2 q,
    "resolved" beyond. Where there is only noise there is no number:

    ============== ============================== ================================ =================
    state          ceiling                        half_copies                      price, gain
    ============== ============================== ================================ =================
    resolved       value, jackknife               value, Fieller                   value, jackknife
    bounded        NaN, [A_lo/sqrt(G X_up), 1]    value, Fieller                   value, jackknife
    unresolved     NaN, [A_lo/sqrt(G X_up), 1]    NaN, [k_lo, T_up G/A_lo^2]       value, jackknife
    too few seeds  value, no interval             value, no interval               value, no interval
    ============== ============================== ================================ =================

    k_lo is the lower Fieller root, and both ends of the unresolved kappa are one-sided 97.5 % bounds (95 %
    together); the price's interval is infinite upwards where A is not resolved. A ceiling may exceed 1 by
    noise (clip in figures only); an interval wholly above 1 is a violation of the law. Where the lower bound
    exceeds 1, the upper equals it. A negative A mirrors the bounds: [-1, -|A|_lo/sqrt(G X_up)].

    Further states, NaN throughout: "too few copies" (fewer than two blocks), "undefined" (a norm is zero),
    "gain unresolved" (see ``cosine``, unit gain), "refused" and "missing". A deterministic estimator is
    "resolved" with kappa = 0 and no width; held against a noisy reference it is "too few seeds", because its
    reference is drawn once.

    **Products of seeds** <g_N^(s), g_N^(t)>, where they are stored at the fitted copies for every pair of at
    least three seeds, give X (formulas in ``_law.py``): without bias whatever the blocks of one seed have in
    common, and sharper where noise dominates. T is the scatter of blocks within a seed in either case: taking it
    from the products moves no coverage by more than 0.5 points. ``products`` says where they were used; elsewhere
    X is that of the moments, where noise common to all blocks of a seed (a reused stream) looks like bias:
    ``goodness_of_fit`` finds it.

    **What the intervals are worth** (level 95 %, because the states are defined by it; they speak of this batch).
    Counted over all runs, whatever their state, from 5 seeds x 20 blocks on (``analyses/calibration.py``: 4,000
    runs in each of 984 cells, kappa from N/100 to 100 N, ceilings 1, 0.7, 0.1):

    - noise in some thirty directions or more, t5 tails, evolution strategies: price and gain 94 to 98 %, ceiling
      and half_copies at least 92.0 and 92.7 % by the moments, 94.4 and 93.9 % with products. These are above 98 % in
      18 % of the cells, up to 99.5 % where resolved: where the ceiling is 1 or noise dominates, leaving out one seed
      overstates the variance of the products 2.7 times at 5 seeds, 2.25 times at 10.
    - bounds (ceiling bounded or unresolved) hold more often than they say: up to 100 %.
    - the mean along the few strongest directions of the noise: 88 to 92 % in some cells, most at ceiling 1; noise in
      fewer than ten directions: 78 to 92 % in some; copies without fourth moments (t3): half_copies 79, price 81 %
      in the resolved cells, and more seeds do not help.

    **enough**: below 5 seeds or 20 blocks the run has too little to say: noise in many directions was covered in at
    least 90 % of 2,000 runs down to 3 seeds x 5 blocks, but by wide intervals, and with 2 blocks in 85 % in places.
    With ``scale="unit-gain"`` the gains' own noise is not in the intervals. Coverage is that of the procedure as a
    whole: where kappa is about 10 N, some cells are "resolved" by luck (3 to 5 % of them with 3 to 5 seeds, 13 %
    with 10, by the moments), and their ceiling and kappa then cover only 40 to 85 %.

    Source: alignment law (derived and simulated for this project); Fieller 1954 for ratios.

    Args:
        ds: Results.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers by name or pattern, e.g.
            ``{"features": ["conv*"], "head": "fc"}``. A layer may be in several groups; one that the estimator
            refuses counts in its group as a direction of zero, as in the model.
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain`` (groups and model only).
        copies: Block boundary at which to fit, e.g. half the run; None (default): the last that all seeds of
            the estimator have reached.
        products: Take |mu|^2 from the products of different seeds where they are stored for all of them at the
            fitted copies, and from the moments elsewhere (default); False: from the moments everywhere.

    Returns:
        Dataset over (estimator, parameter | layer | group): ``ceiling half_copies price gain``, each with
        ``_low`` and ``_high``; ``state``; ``fitted_copies`` (N), ``exact`` (no noise), ``products`` (X is that of
        products of seeds) and ``enough`` (at least 5 seeds and 20 blocks, or exact); and per seed ``A X T G``.
        Copies in copies, everything else without unit; A, X, T and G in squared units of the gradient.
        ``attrs``: over, reference, scale, block, copies, level; ``note`` if there is somewhere too little to say.

    Raises:
        UsageError: A name is unknown, a pattern matches no layer, ``copies`` is not stored, or there are fewer
            than two blocks.

    Example:
        >>> law = gp.stats.alignment(ds).sel(layer="fc")
        >>> names = ["ceiling_low", "ceiling_high", "half_copies", "state"]
        >>> law[names].to_dataframe()[names].round(2)
                   ceiling_low  ceiling_high  half_copies       state
        estimator
        lr                0.95          1.05        12.00    resolved
        alr               0.84          0.91        16.95    resolved
        es                0.66          1.00          NaN  unresolved
    """
    if copies is not None:
        check_boundary(np.asarray(ds["copies"].values), copies)
    m = moments(ds, over, reference, scale, copies)
    found = fit(m, copies, products)
    state = np.where(m.served, states(found), "refused")
    if scale == "unit-gain":
        there = moments(ds, over, reference).last() >= 0
        state = np.where((state == "missing") & there, "gain unresolved", state)
    out = xr.Dataset()
    for name, triple in describe(found, state).items():
        for suffix, value in zip(("", "_low", "_high"), triple, strict=True):
            kept = np.where((state == "undefined"), np.nan, value)
            out[name + suffix] = m.label(kept, long_name=_LONG[name])
    out["state"] = m.label(state)
    out["fitted_copies"] = m.label(found.copies.astype(int))
    enough = found.enough(m.block)
    flags = {"exact": found.exact, "products": np.asarray(found.products), "enough": enough}
    for name, flag in flags.items():
        out[name] = m.label(flag)
    for name, value in zip("AXTG", (found.a, found.x, found.t, found.g), strict=True):
        out[name] = m.label(value, "seed", long_name=_LONG[name])
    last = int(found.copies.max(initial=0))
    out.attrs = m.facts | {"copies": last, "level": 0.95}
    if (~enough & np.isfinite(found.x).any(-1)).any():
        out.attrs["note"] = TOO_LITTLE
    return out


def states(found: Fit) -> npt.NDArray[np.str_]:
    """State of every cell, ``[...]`` (one of ``STATES``); from X alone."""
    mean, se = found.se(found.x)
    q = found.quantile(TWO_SIDED)
    nothing = ~np.isfinite(found.x).any(-1)
    zero = (np.nanmax(np.abs(np.nan_to_num(found.x)) + np.nan_to_num(found.t), axis=-1) == 0) | (
        np.nan_to_num(found.g) == 0
    ).all(-1)
    conditions = [found.few, nothing, zero, np.isnan(q), mean > 2 * q * se, mean > q * se]
    names = ["too few copies", "missing", "undefined", "too few seeds", "resolved", "bounded"]
    return np.select(conditions, names, default="unresolved").astype("<U15")


def describe(found: Fit, state: npt.NDArray[np.str_]) -> dict[str, Triple]:
    """Value, low and high of ceiling, half_copies, price and gain, each ``[...]``."""
    with np.errstate(all="ignore"):
        return {
            "ceiling": _ceiling(found, state),
            "half_copies": _half_copies(found, state),
            "price": _price(found),
            "gain": found.interval(lambda a, x, t, g: a / g),
        }


def _along(found: Fit, p: float) -> Triple:
    """Interval of <mu, g>/|g|: A and G enter the bounds only through it."""
    return found.interval(lambda a, x, t, g: a / np.sqrt(g), p)


def _positive_bound(h_low: Array, low: Array, high: Array) -> Array:
    """Lower bound of h/sqrt(v) from h >= h_low and low <= v <= high."""
    worst = np.where(low > 0, h_low / np.sqrt(np.where(low > 0, low, 1.0)), -1.0)
    return np.where(h_low >= 0, h_low / np.sqrt(high), np.maximum(worst, -1.0))


def _ceiling(found: Fit, state: npt.NDArray[np.str_]) -> Triple:
    value, low, high = found.interval(lambda a, x, t, g: a / np.sqrt(g * x))
    mean, se = found.se(found.x)
    width = found.quantile(TWO_SIDED) * se
    _, h_low, h_high = _along(found, TWO_SIDED)
    x_low, x_high = mean - width, np.maximum(mean, 0.0) + width
    bound_low = _positive_bound(h_low, x_low, x_high)
    # the mirror image: known to be negative only where h is
    bound_high = np.where(h_high < 0, -_positive_bound(-h_high, x_low, x_high), np.maximum(1.0, bound_low))
    bounds = np.isin(state, ("bounded", "unresolved"))
    return (
        np.where(bounds, np.nan, value),
        np.where(bounds, bound_low, low),
        np.where(bounds, bound_high, high),
    )


def _half_copies(found: Fit, state: npt.NDArray[np.str_]) -> Triple:
    mean = found.se(found.x)[0]
    value = np.where(mean > 0, found.se(found.t)[0] / mean, np.nan)
    q = found.quantile(TWO_SIDED)
    low, high = (np.where(found.exact, value, v) for v in fieller(found.t, found.x, q))
    t_mean, t_se = found.se(found.t)
    _, h_low, h_high = _along(found, TWO_SIDED)
    nearest = np.where(h_low > 0, h_low, np.where(h_high < 0, -h_high, 0.0))
    above = (t_mean + q * t_se) / nearest**2
    below = np.minimum(fieller_lower(found.t, found.x, q), above)
    bounds = state == "unresolved"
    return np.where(bounds, np.nan, value), np.where(bounds, below, low), np.where(bounds, above, high)


def _price(found: Fit) -> Triple:
    _, low, high = found.interval(lambda a, x, t, g: a / np.sqrt(g * t))
    value = found.interval(lambda a, x, t, g: t * g / a**2)[0]
    inside = (low <= 0) & (high >= 0)
    ends = np.stack([low**-2, high**-2])
    lowest = ends.min(0)
    highest = np.where(inside, np.inf, ends.max(0))
    free = (found.se(found.t)[0] == 0) & np.isfinite(found.quantile(TWO_SIDED))
    return value, np.where(free, value, lowest), np.where(free, value, highest)
