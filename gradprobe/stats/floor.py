"""What the curvature of a noiseless law alone gives for Acc. and Sta."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._grid import Array, line_residual, rms, trapezoid_weights, within
from gradprobe.stats._groups import Over
from gradprobe.stats._law import fit
from gradprobe.stats._moments import moments

_FLAT = 1e4
"""kappa / n2 from which on sqrt(n/kappa) stands for the law: off by 1e-4, where the integrals cancel."""


@register("stability_floor", summary="Sta. of the fitted law without any noise: curvature alone")
def stability_floor(
    ds: xr.Dataset,
    copies: tuple[float, float] | None = None,
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
) -> xr.DataArray:
    """The part of Sta. that is curvature: Sta. of the fitted law without noise, on the run's own grid.

    The law A/sqrt(G (X + T/n)), pooled over seeds at the last copies, is put through the same trapezoid
    weights and the same line as ``stability``. A Sta. near its floor says nothing about noise (it may lie
    below: noise can straighten a curve). The floor is known also where the law's state is unresolved,
    because inside the run the curve itself is.

    Source: alignment law, 5c (closed form for a point at every n: :func:`law_stability`).

    Args:
        ds: Results.
        copies: (n1, n2) as for ``stability``; default: the whole stored grid.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers (see ``alignment``).
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain`` (groups and model only).

    Returns:
        Floor in units of the cosine, dims (estimator, parameter | layer | group).

    Raises:
        UsageError: As ``stability``; or there are fewer than two blocks.
    """
    m = moments(ds, over, reference, scale)
    n = m.copies[within(m.copies, copies, least=3)]
    weights = trapezoid_weights(n)
    law = fit(m)
    reached = (law.copies >= n[-1])[..., None]
    values = rms(line_residual(np.where(reached, law.curve(n), np.nan), n, weights), weights)
    extra = {"range": [int(n[0]), int(n[-1])]}
    return m.label(values, long_name="Sta. of the law alone", **extra).rename("stability_floor")


def law_stability(n1: npt.ArrayLike, n2: npt.ArrayLike, kappa: npt.ArrayLike) -> Array:
    """Sta. of sqrt(n/(n + kappa)) with a point at every whole n from n1 to n2, equal weights.

    On [x1, x2] = [n1 - 1/2, n2 + 1/2], L = x2 - x1, with a, b the increments of the integrals of the law and
    of its square and c that of n times the law minus (x1 + x2) a/2:
    Sta.^2 = b/L - (a/L)^2 - 12 c^2/L^4. It depends on n1/kappa and n2/kappa only; times the ceiling for an
    estimator with bias. At most 0.086 (n1/n2 to 0, kappa = 0.13 n2); 0.047 sqrt(n2/kappa) for large kappa.

    Args:
        n1: First number of copies, at least 1.
        n2: Last number of copies.
        kappa: Half-power copies, not negative.

    Returns:
        Sta., broadcast shape. For n2 = 2000 equal to the sum over whole n to 1e-4, except for kappa about
        n1 = 1: 3e-4 there (1.4e-3 for n2 = 100, 5e-3 for n2 = 10).
    """
    a, b, c, length = _increments(n1, n2, kappa)
    return np.sqrt(np.maximum(b / length - (a / length) ** 2 - 12 * c**2 / length**4, 0.0))


def law_accuracy(n1: npt.ArrayLike, n2: npt.ArrayLike, kappa: npt.ArrayLike) -> Array:
    """Acc. of sqrt(n/(n + kappa)) with a point at every whole n, a/L in :func:`law_stability`.

    Args:
        n1: First number of copies, at least 1.
        n2: Last number of copies.
        kappa: Half-power copies, not negative.
    """
    a, _, _, length = _increments(n1, n2, kappa)
    return a / length


def _increments(
    n1: npt.ArrayLike, n2: npt.ArrayLike, kappa: npt.ArrayLike
) -> tuple[Array, Array, Array, Array]:
    x1, x2 = np.asarray(n1, dtype=float) - 0.5, np.asarray(n2, dtype=float) + 0.5
    k = np.asarray(kappa, dtype=float)
    low, high = _integrals(x1, k, x2), _integrals(x2, k, x2)
    a, b, moment = (h - f for f, h in zip(low, high, strict=True))
    return a, b, moment - (x1 + x2) * a / 2, x2 - x1


def _integrals(n: Array, k: Array, top: Array) -> tuple[Array, Array, Array]:
    """Integrals from 0 to n of the law, its square, and n times the law."""
    with np.errstate(all="ignore"):
        root, angle = np.sqrt(n * (n + k)), np.where(k > 0, np.arcsinh(np.sqrt(n / k)), 0.0)
        exact = (
            root - k * angle,
            n - np.where(k > 0, k * np.log1p(n / k), 0.0),
            root * (2 * n - 3 * k) / 4 + 0.75 * k**2 * angle,
        )
        flat = (n**1.5 / np.sqrt(k) / 1.5, n**2 / k / 2, n**2.5 / np.sqrt(k) / 2.5)
    first, square, moment = (np.where(k > _FLAT * top, f, e) for f, e in zip(flat, exact, strict=True))
    return first, square, moment
