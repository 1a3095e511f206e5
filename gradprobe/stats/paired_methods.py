"""Two methods on the same seeds: is one better, or is it the noise?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import stdtr  # scipy.stats takes seconds to import

from gradprobe.core.errors import UsageError, one_of, positive
from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._holm import holm
from gradprobe.stats._intervals import LEAST_SEEDS, Array, check_level, mean_se, t_quantile
from gradprobe.stats._moments import Moments, moments
from gradprobe.stats._names import two_of
from gradprobe.stats._units import KINDS, groups_of, read_units
from gradprobe.stats.cosine_similarity import cosine_values

AT = ("copies", *KINDS)

ROUNDING = 1e-9
"""Relative difference of two numbers of copies that are the same."""


@register(
    "compare", summary="is one method better than another: paired over seeds, Holm-corrected over layers"
)
def compare(
    ds: xr.Dataset,
    first: str,
    second: str,
    at: str = "copies",
    amount: float | None = None,
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
    level: float = 0.95,
) -> xr.Dataset:
    """Cosine of one method minus that of another, paired over seeds, at equal copies or at equal cost.

    Methods that share a draw share its noise, seed by seed, so the difference of their cosines scatters far less
    than either: it gets its own t interval over seeds, d -/+ t_{S-1} sd(d)/sqrt(S), and a two-sided p value.
    Between methods of different draws seeds are pairs in name only, and the interval is as right.

    Over layers (or parameters, or groups) ``p_holm`` is corrected for looking at all of them (Holm 1979): the
    chance that any layer is called better although none is, is at most 1 - ``level``. Intervals are for each
    layer alone. ``overall`` is the whole model, a single test.

    **Equal cost**: both methods get the copies that the same amount of ``at`` buys, each at its own price in
    that layer (``cost``); between stored points the cosine is interpolated linearly in n. A method without noise
    has its one value at any amount.

    The cosines are those of single estimates, so "better" means: closer to the reference after this many copies,
    for this batch. Which of two methods is better may change with the amount: ask at the one that you will use.

    Source: Student's paired t test; Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    Args:
        ds: Results.
        first: An estimator; its name without options is enough if it is the only one of that name.
        second: Another one.
        at: ``copies`` (default), ``equivalents`` (full-forward equivalents), ``forwards`` or ``seconds``.
        amount: How much of it each layer gets, and the model in all (there in equal copies for each layer).
            Default: the most that both methods reached, in each layer and in the model.
        over: ``parameter``, ``layer`` (default), ``model`` or groups, as for ``cosine``.
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain``, for the whole model (``attrs["overall_scale"]``) and for groups.
        level: Level of the intervals, between 0 and 1; default 0.95.

    Returns:
        Dataset over (parameter | layer): ``effect`` (first minus second, in units of the cosine) with ``_low`` and
        ``_high``; ``p``; ``p_holm``; ``better``, the label of the better method where p_holm < 1 - level, else
        ""; ``first`` and ``second``, the mean cosines; ``first_copies``, ``second_copies``, the copies behind
        them; ``seeds``, the pairs. ``overall`` with ``_low``, ``_high``, ``_p`` and ``_better`` is the whole
        model's (with ``over="model"`` the others are). Intervals and p are NaN below three seeds, everything where a
        method refused the layer or did not reach the amount.

    Raises:
        UsageError: A name is unknown, both are the same, neither any layer nor the model reached the amount, or
            it buys less than the first stored copies.

    Example:
        >>> won = gp.stats.compare(ds, "alr", "lr").sel(layer="fc")
        >>> print(f"{float(won['effect']):.2f}, better: {won['better'].item()}")
        -0.13, better: lr
    """
    check_level(level)
    one_of("at", at, AT)
    amount = None if amount is None else positive("amount", amount)
    asked = (first, second), at, amount, level
    model = moments(ds, "model", reference, scale)
    whole = _compared(model, _prices(ds, at, "model"), *asked)
    if over == "model":
        _check_amount(amount, at, model, whole)
        return whole
    grouped = isinstance(over, Mapping)
    own = moments(ds, over, reference, scale if grouped else "raw")
    found = _compared(own, _prices(ds, at, over), *asked)
    _check_amount(amount, at, own, found, whole)
    found.attrs["overall_scale"] = scale
    return found.assign({f"overall{name}": whole[f"effect{name}"] for name in ("", "_low", "_high")}).assign(
        overall_p=whole["p"], overall_better=whole["better"]
    )


def _check_amount(amount: float | None, at: str, m: Moments, *found: xr.Dataset) -> None:
    """Refuse an amount that nowhere buys the first stored copies.

    Raises:
        UsageError: It is one.
    """
    if amount is None or any(np.isfinite(x["effect"].values).any() for x in found):
        return
    bought = [np.minimum(x["first_copies"].values, x["second_copies"].values).ravel() for x in found]
    most = float(np.nanmax(np.concatenate([[0.0], *bought])))
    if 0 < most < m.copies[0] * (1 - ROUNDING):
        raise UsageError(
            f"amount={amount:g} buys less than the first stored {m.copies[0]:g} copies; ask for at least "
            f"{amount * m.copies[0] / most:g} {at}."
        )


def _prices(ds: xr.Dataset, at: str, over: Over) -> Array:
    """What a copy costs, ``[estimator, part]``."""
    prices = read_units(ds).of(groups_of(ds, over)[1])[0]
    return np.ones_like(prices["forwards"]) if at == "copies" else prices[at]


def _compared(
    m: Moments, prices: Array, names: tuple[str, str], at: str, amount: float | None, level: float
) -> xr.Dataset:
    labels = m.coords["estimator"]
    which = two_of(labels, *names)
    copies = _copies(m, prices[which], which, at, amount)
    one, other = _at_copies(cosine_values(m)[which], m.copies, copies)
    values = _tested(one - other, level)
    values |= {"first": mean_se(one)[0], "second": mean_se(other)[0]}
    values |= {"first_copies": copies[0], "second_copies": copies[1]}
    winner = np.where(values["effect"] > 0, labels[which[0]], labels[which[1]])
    values["better"] = np.where(values["p_holm"] < 1 - level, winner, "")
    asked = {"first": labels[which[0]], "second": labels[which[1]], "at": at, "level": level}
    part = m.facts["over"]
    if part == "model":
        return xr.Dataset({k: ((), v[0]) for k, v in values.items()}, attrs=m.facts | asked)
    coords = {k: v for k, v in m.coords.items() if (v[0] if isinstance(v, tuple) else k) == part}
    return xr.Dataset({k: (part, v) for k, v in values.items()}, coords, m.facts | asked)


def _copies(m: Moments, each: Array, which: list[int], at: str, amount: float | None) -> Array:
    """Copies of both methods for the same amount, ``[2, part]``; NaN where one did not reach it."""
    last = m.last()[which]
    reached = np.where(last >= 0, m.copies[np.maximum(last, 0)], np.nan)
    has_noise = m.stochastic[which][:, None]
    most = np.where(np.isfinite(reached) & ~has_noise, np.inf, reached * each).min(0)
    most = np.where(np.isinf(most), (reached * each).max(0), most)  # neither has noise
    wanted = most
    if amount is not None:
        wanted = np.where(most >= amount * (1 - ROUNDING), amount, np.nan)
        if np.isfinite(most).any() and not np.isfinite(wanted).any():
            raise UsageError(
                f"amount={amount:g} is more than both methods reached; ask for at most {np.nanmax(most):g} {at}."
            )
    with np.errstate(all="ignore"):
        return np.where(has_noise, wanted / each, np.where(np.isfinite(wanted), m.copies[0], np.nan))


def _at_copies(cosines: Array, grid: Array, copies: Array) -> Array:
    """Cosines ``[2, part, seed]`` at copies ``[2, part]``, linear between stored points; NaN before the first."""
    above = np.searchsorted(grid, np.nan_to_num(copies) * (1 - ROUNDING)).clip(max=grid.size - 1)
    below = np.maximum(above - 1, 0)
    with np.errstate(all="ignore"):
        share = np.where(above > below, (copies - grid[below]) / (grid[above] - grid[below]), 1.0)
    share = np.where(copies >= grid[0] * (1 - ROUNDING), np.minimum(share, 1.0), np.nan)[..., None]
    low, high = (np.take_along_axis(cosines, i[..., None, None], axis=-1)[..., 0] for i in (below, above))
    return np.where(share == 1, high, (1 - share) * low + share * high)


def _tested(difference: Array, level: float) -> dict[str, Any]:
    """Mean of ``[part, seed]``, its t interval, p values and number of pairs."""
    mean, se, count = mean_se(difference)
    half = t_quantile((1 + level) / 2, count) * se
    with np.errstate(all="ignore"):
        t = np.where(se > 0, np.abs(mean) / se, np.where(mean == 0, 0.0, np.inf))
        p = 2 * stdtr(np.where(count >= LEAST_SEEDS, count - 1, np.nan), -t)
    ends = {"effect": mean, "effect_low": mean - half, "effect_high": mean + half}
    return ends | {"p": p, "p_holm": holm(p), "seeds": count.astype(int)}
