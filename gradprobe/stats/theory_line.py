"""What random directions reach by theory alone: the yardstick beside a measured cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradprobe.core.errors import one_of
from gradprobe.stats import register
from gradprobe.stats._numbers import positive_numbers

ENCODINGS = ("exact", "sign")


@register(
    "theory", summary="cosine that Gaussian directions in D coordinates reach after n copies, by theory"
)
def theory(
    coordinates: float | Sequence[float] | xr.DataArray,
    copies: float | Sequence[float],
    encode: str = "exact",
) -> xr.DataArray:
    """Cosine that the mean of n i.i.d. Gaussian directions in D coordinates has with the gradient.

    Each copy measures the exact slope <g, e> along e ~ N(0, I_D) and proposes <g, e> e. The mean has
    E<g_n, g> = |g|^2 and E|g_n|^2 = |g|^2 (n + D + 1)/n, so that the pooled cosine (mean dot over root mean
    square, the alignment law's) is exactly

        cos(n) = sqrt(n/(n + D + 1)):    ceiling 1, half-power copies D + 1.

    With one bit per copy and coordinate, <g, e> sign(e), or one bit per copy, sign(<g, e>) e: mean sqrt(2/pi) g (over
    |g|), mean square D |g|^2, exactly sqrt(n/(n + pi D/2 - 1)): a sign costs a factor pi/2 in copies and no ceiling.
    (Both signs together have a ceiling below 1 of their own, which depends on g.)

    This is what weight noise gives (ES, AES) at small sigma without rounding, in all D coordinates at once. Noise on
    a layer's output (LR) has as many coordinates as that output, and each sample its own: LR may lie far above or
    below the line of its weights. Over a model, noise in one layer at a time gives n directions in *every* layer and
    may lie above the line of all weights at once. n orthonormal directions would reach sqrt(n/D).

    The *mean* of measured cosines lies beside the pooled one. Mean less law by simulation (20,000 repeats): below it
    while n is small against D (n = 1: -0.030, -0.020, -0.006, -0.002 for D = 10, 100, 1000, 10000; n = 10: -0.004,
    -0.002, -0.001 from D = 100 on), above it later (at most 0.027, 0.009, 0.003, 0.0002 for D = 10, 30, 100, 1000).
    With one-bit weights it is above by at most 0.013, 0.004, 0.002 for D = 10, 30, 100.

    Source: methods.md, section 8 (derived); fourth moments of the Gaussian, E|<g,e> e|^2 = (D + 2)|g|^2.

    Args:
        coordinates: D: a number, several, or a DataArray such as a run's ``numel`` by layer.
        copies: n, one number or several; positive.
        encode: ``exact`` (default) or ``sign`` (one of the two signs).

    Returns:
        Cosines, dims those of ``coordinates`` (``coordinate`` if several numbers were given), and ``copies`` if
        several were given.

    Raises:
        UsageError: A number is not positive, or ``encode`` is unknown.

    Example:
        >>> round(float(gp.stats.theory(1000, copies=1001)), 3)
        0.707
    """
    one_of("encode", encode, ENCODINGS)
    n, several = positive_numbers("copies", copies)
    if isinstance(coordinates, xr.DataArray):
        d, like = np.asarray(coordinates.values, dtype=np.float64), coordinates
        positive_numbers("coordinates", d.ravel())
    else:
        d, many = positive_numbers("coordinates", coordinates)
        d = d if many else d[0]
        like = xr.DataArray(d, dims=["coordinate"] if many else [])
        like = like.assign_coords(coordinate=d) if many else like
    kappa = d + 1 if encode == "exact" else np.pi / 2 * d - 1
    with np.errstate(divide="ignore"):
        values = np.sqrt(n / (n + kappa[..., None]))
    out = xr.DataArray(values, dims=(*like.dims, "copies"), coords=like.coords).assign_coords(copies=n)
    out.attrs = {"encode": encode, "long_name": "cosine by theory"}
    return (out if several else out.isel(copies=0)).rename("theory")
