"""The schema of trajectories: what descents on a function write and what statistics and figures read.

A **path** (``gp.descend``) has dims ``estimator``, ``start`` (only if several starts were given), ``seed``, ``step``
(the steps that were recorded; step 0 is the start) and ``coordinate``. All numbers are float64.

==================  ========================================  =====================================================
variable            dims                                      meaning
==================  ========================================  =====================================================
position            estimator, start, seed, step, coordinate  x_k
direction           estimator, start, seed, step, coordinate  estimate at x_k, as the estimator returned it; NaN at
                                                              the last step
gradient            estimator, start, seed, step, coordinate  true gradient at x_k
loss                estimator, start, seed, step              f(x_k)
cosine              estimator, start, seed, step              cosine of direction and gradient; NaN where one is 0
gain                estimator, start, seed, step              <direction, gradient> / |gradient|^2
distance            estimator, start, seed, step              from x_k to the nearest global minimum; NaN if unknown
forwards            estimator, step                           forward evaluations spent to reach x_k
diverged            estimator, start, seed                    first step whose position or loss is not finite; NaN if
                                                              there is none. What follows it is NaN.
lost                estimator, start, seed                    noisy evaluations that counted as 0 because they (or an
                                                              antithetic partner) were not finite; NaN if unknown
lr                  estimator                                 learning rate (of step 1)
start_position      start, coordinate                         where descents start
minimum_position    minimum, coordinate                       known minima; coordinate on ``minimum``:
                                                              ``minimum_kind`` ("global" or "local")
surface             y, x                                      f on a grid of the second and first coordinate, for
                                                              functions of two variables; ``x`` and ``y`` are its axes
tuning_score        estimator, rate                           with ``lr="tuned"``: score of each rate (low is good)
==================  ========================================  =====================================================

Coordinates on ``estimator``: ``color``, ``target``, ``summary``, ``stochastic``, ``sigma`` (standard deviation of
its noise, NaN without) and ``shrinks`` (sigma E|eps| where only the sign of the noise is used and there is no
1/sigma: to first order the length of the mean relative to the gradient; NaN else). A deterministic estimator is
computed once and repeated over seeds. Attributes: ``kind`` = "path", ``function``, ``source``, ``minimum_value``,
``domain`` (JSON, null if unknown), ``optimizer``, ``step_rule`` ("raw", "normalised"), ``bounds``, ``clip``,
``decay``, ``copies``, ``lr_rule`` ("given", "tuned"), ``tuning`` (JSON: seeds, steps, criterion, at_edge),
``root_seed``, ``every``, ``environment`` (JSON), ``constant_input`` (1: LR is ES here).

A **field** (``gp.field``) has dims ``field`` ("gradient", then one for each estimator), ``y``, ``x``, ``coordinate``,
``zero``, ``minimum``, and ``surface_y``, ``surface_x`` (a finer grid):

==================  ============================  ===========================================================
variable            dims                          meaning
==================  ============================  ===========================================================
vector              field, y, x, coordinate       mean direction at the grid's points
error               field, y, x, coordinate       its error: 0 where it is exact, the difference from a
                                                  coarser rule where integrated, else a standard error
surface             surface_y, surface_x          f
zero_position       zero, coordinate              where descending a field stops; coordinates on ``zero``:
                                                  ``zero_field``, ``stable`` (what starts near it comes back), and
                                                  ``boundary`` (on the edge of the domain, for projected descents
                                                  alone: the field's zeros are the others)
minimum_position    minimum, coordinate           as above
==================  ============================  ===========================================================

Coordinates on ``field``: ``color``, ``sigma``, ``shrinks``, ``how`` ("exact", "integrated" over the noise,
"integrated, not converged", "sampled", "unknown"; zeros are looked for in the first two). Attributes: ``kind``
= "field", ``function``, ``source``, ``minimum_value``, ``domain``, ``copies`` (0: none given), ``root_seed``,
``environment``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import xarray as xr

from gradprobe.core.errors import UsageError, described

NEAR = 0.01
"""By default a walker has arrived within this share of the domain's diagonal from a minimum."""

GRADIENT = "gradient"
"""The field of backprop."""

SEARCHED = ("exact", "integrated")
"""Ways of computing a field whose zeros are looked for."""

DWELL = 0.1
"""A walker stays if it is near a minimum through this last share of the steps, and longer."""

MAKERS = {"path": "gp.descend", "field": "gp.field"}

FURTHER = ("checkpoint", "sigma")
"""Dimensions along which runs are compared."""


def check_kind(ds: Any, kind: str) -> xr.Dataset:
    """Refuse what is no path, or no field.

    Args:
        ds: What was given.
        kind: ``"path"`` or ``"field"``.

    Returns:
        It.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(ds, xr.Dataset) or ds.attrs.get("kind") != kind:
        what = "other results" if isinstance(ds, xr.Dataset) else described(ds)
        raise UsageError(f"this needs the {kind} that {MAKERS[kind]}(...) returns, not {what}.")
    return ds


def matched_fields(path: xr.Dataset, field: xr.Dataset) -> dict[str, str]:
    """Which field each estimator of a path follows; backprop follows the gradient. Others may have none.

    Raises:
        UsageError: They are not a path and a field, not of the same function, or no estimator has a field.
    """
    check_kind(path, "path")
    check_kind(field, "field")
    function, other = path.attrs.get("function"), field.attrs.get("function")
    if function != other:
        raise UsageError(
            f"the path is one on {function} and the field one of {other}; give two of the same function."
        )
    known = [str(f) for f in field["field"].values]
    labels = [str(e) for e in path["estimator"].values]
    named = {e: GRADIENT if e == "bp" and e not in known else e for e in labels}
    found = {e: f for e, f in named.items() if f in known}
    if not found:
        raise UsageError(
            f"none of the path's estimators ({', '.join(labels)}) has a field among {', '.join(known)}; make both "
            "with the same ones."
        )
    return found


def check_probed(ds: xr.Dataset) -> None:
    """Refuse what is no result of a probe of one batch: a path, a field, several batches or runs, a statistic.

    Raises:
        UsageError: It is one.
    """
    if not isinstance(ds, xr.Dataset):
        raise UsageError(
            f"this needs results of gp.probe(...) or gp.open_run(...), not {described(ds)}; open the run first."
        )
    check_single(ds)
    if "batch" in ds.dims:
        raise UsageError(
            f"these are results of {ds.sizes['batch']} batches; choose one, ds.isel(batch=0), or ask "
            "gp.stats.data_or_copies(ds)."
        )
    kind = ds.attrs.get("kind")
    if kind in MAKERS:
        raise UsageError(f"this needs the results of gp.probe(...), not the {kind} of {MAKERS[kind]}(...).")
    if "sqnorm" not in ds:
        raise UsageError(
            "this needs the results of gp.probe(...) or gp.open_run(...), not what a statistic made of them."
        )


def check_single(ds: xr.Dataset) -> None:
    """Refuse several runs side by side.

    Raises:
        UsageError: There is a further dimension.
    """
    for dim in (d for d in FURTHER if d in ds.dims):
        first = ds[dim].values.tolist()[0]
        raise UsageError(
            f"these are results of {ds.sizes[dim]} runs along {dim!r}; choose one, ds.sel({dim}={first!r}), or draw "
            "them side by side with gp.plots.training(ds)."
        )


def default_radius(domain: Sequence[Sequence[float]]) -> float:
    """1 % of the diagonal of a domain."""
    return NEAR * math.dist([low for low, _ in domain], [high for _, high in domain])


def with_starts(path: xr.Dataset) -> xr.Dataset:
    """A path with a dimension ``start``, also where there is one start only.

    A start that was selected, ``path.sel(start=2)``, keeps its label; else the only one is 0.
    """
    if "start" in path.dims:
        return path
    label = path["start"].item() if "start" in path.coords else 0
    path = path.drop_vars("start", errors="ignore")
    shaped = ["position", "direction", "gradient", "loss", "cosine", "gain", "distance", "diverged", "lost"]
    wide = path.assign({name: path[name].expand_dims("start", 1) for name in shaped if name in path})
    if "start_position" in path:
        wide["start_position"] = path["start_position"].expand_dims("start", 0)
    return wide.assign_coords(start=[label])
