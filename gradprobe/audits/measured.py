"""Gain and direction of an audited function for the model and each layer, from the moments of its calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats._intervals import mean_se, t_quantile
from gradprobe.stats._law import cross
from gradprobe.stats._moments import Moments, moments
from gradprobe.stats.alignment_law import alignment

Array = npt.NDArray[np.float64]
Triple = tuple[float, float, float]

ALARM = 0.005
"""False alarms of each of four kinds of tests (length and direction, of the model and over all layers)."""

MODEL = "the whole model"


@dataclass(frozen=True)
class Part:
    """What was measured of the model or of one layer.

    Attributes:
        name: Name of the layer, or :data:`MODEL`.
        numel: Weights in it.
        gain: <mu, g>/|g|^2 with its interval over calls, at the audit's own level.
        apart: Its gain less the model's, likewise, call by call.
        most: No cosine between mean direction and gradient above this fits, at that level.
        ceiling: Cosine with endlessly many copies, with its 95 % interval; see ``gp.stats.alignment``.
        half_copies: Calls at which cos^2 is half its ceiling's, likewise.
        price: Calls / (1/cos^2 - 1/ceiling^2), likewise.
        state: What could be told of the direction: ``"resolved"``, ``"bounded"``, ...
    """

    name: str
    numel: int
    gain: Triple
    apart: Triple
    most: float
    ceiling: Triple
    half_copies: Triple
    price: Triple
    state: str

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON; what is not known is None."""
        return {k: _plain(v) for k, v in asdict(self).items() if k != "name"}


@dataclass(frozen=True)
class Terms:
    """Per call and seed, what a part's numbers are made of.

    Attributes:
        along: <B, g> of each call B, ``[seed, call]``.
        products: <mean of one seed, mean of another>, ``[seed, seed]``.
        square: |g|^2.
    """

    along: Array
    products: Array
    square: float


def measure(ds: xr.Dataset, exact: bool) -> list[Part]:
    """The model and its layers, those whose gradient is zero left out.

    Args:
        ds: Run of the audited function alone, with blocks of one call.
        exact: Whether it is the same under every seed.
    """
    laws = [alignment(ds, over=over).isel(estimator=0) for over in ("model", "layer")]
    layers = moments(ds, "layer", "bp")
    found: list[Part] = []
    whole: Array | None = None
    for i, (m, law) in enumerate(zip((moments(ds, "model", "bp"), layers), laws, strict=True)):
        names = [str(n) for n in layers.coords["layer"]] if i else [MODEL]
        numel = [int(n) for n in layers.coords["numel"][1]]
        terms = [terms_of(m, at, exact) for at in range(len(names))]
        there = sum(t.square > 0 for t in terms)
        for at, (name, own) in enumerate(zip(names, terms, strict=True)):
            if own.square > 0:
                one = law.isel(layer=at) if i else law
                size = numel[at] if i else sum(numel)
                gains = own.along / own.square
                whole = gains if whole is None else whole
                apart = over_calls(gains - whole, ALARM / there, exact)
                found.append(_part(name, size, one, apart, *judged(own, ALARM / there, exact)))
    return found


def terms_of(m: Moments, at: int, exact: bool) -> Terms:
    """The terms of one part."""
    square = float(mean_se(m.reference)[0][0, at])
    if exact:
        last = int(m.last()[0, at])
        return Terms(m.dot[0, at, :1, last, None], m.sqnorm[0, at, :1, last, None], square)
    totals = m.dot[0, at] * m.copies
    return Terms(np.diff(totals, axis=-1, prepend=0.0), m.products[0, at], square)


def judged(terms: Terms, level: float, exact: bool, doubt: float = 0.0) -> tuple[Triple, float]:
    """Gain with its interval, and the largest cosine that fits.

    The gain's interval is Student's over all calls: they are made under independent seeds, each from the same state.
    The direction's test is of |mu|^2 - <mu, g>^2/|g|^2, the squared length that is not along the gradient, from
    products of different seeds (without bias): 0 for the gradient whatever its scale.

    Args:
        terms: What was seen.
        level: Share of false alarms.
        exact: Whether there is no noise.
        doubt: Half the width of the gain's interval that comes of a noisy reference alone.
    """
    mean, low, _ = over_calls(terms.along / terms.square, level, exact)
    half = math.hypot(mean - low, doubt)
    gain = (mean, mean - half, mean + half)
    own = terms.along.mean(-1)
    beside = terms.products - own[:, None] * own[None, :] / terms.square
    if exact:
        least = float(beside.mean())
    else:
        pseudo, _ = cross(beside, np.diagonal(beside), np.isfinite(own))
        value, error, seeds = mean_se(pseudo)
        least = float(value - t_quantile(1 - level, seeds) * error)
    least -= 2 * doubt * abs(mean) * terms.square  # of <mu, g>^2/|g|^2
    along = max(abs(gain[1]), abs(gain[2])) ** 2 * terms.square
    least = max(least, 0.0) if math.isfinite(least) else 0.0
    most = math.sqrt(along / (along + least)) if along + least > 0 else math.nan
    return gain, most


def over_calls(values: Array, level: float, exact: bool = False) -> Triple:
    """Mean over all calls and its interval by Student's t, without width where there is no noise."""
    mean, se, count = (float(x) for x in mean_se(values.ravel()))
    half = 0.0 if exact or count < 2 else float(t_quantile(1 - level / 2, np.array(count), least=2)) * se
    return mean, mean - half, mean + half


def _part(name: str, numel: int, law: xr.Dataset, apart: Triple, gain: Triple, most: float) -> Part:
    ceiling, half_copies, price = (
        (float(law[k]), float(law[f"{k}_low"]), float(law[f"{k}_high"]))
        for k in ("ceiling", "half_copies", "price")
    )
    return Part(name, numel, gain, apart, most, ceiling, half_copies, price, str(law["state"].item()))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def gain_of(products: Mapping[int, list[float]], square: float, level: float) -> Triple:
    """Gain along another direction, from the products of each call with it.

    Args:
        products: Seed -> product of each call.
        square: |direction|^2.
        level: Share of false alarms.
    """
    return over_calls(np.array([x for each in products.values() for x in each]) / square, level)
