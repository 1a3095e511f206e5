"""What the length of a direction looks like: sigma, 1/B, a sign that is turned."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import isclose

NEAR = 0.1
"""How far from 1 a gain may be: a smoothed loss has a slightly shorter or longer gradient."""
SLACK = 0.05
"""By how much an interval is widened, likewise, before names are looked for in it."""


def known_factors(batch: int, sigma: float | None, samples: int | None) -> dict[str, float]:
    """Factors that gradient code is off by, by name, 1 first; only those whose numbers are known.

    Args:
        batch: Samples in the batch, B.
        sigma: Standard deviation of the noise, if it was told.
        samples: Evaluations or pairs in one call, N, if it was told.
    """
    found = {"2": 2.0, "1/2": 0.5}
    if batch > 1:
        found |= {"B": float(batch), "1/B": 1 / batch}
    if samples is not None and samples > 1:
        found |= {"N": float(samples), "1/N": 1 / samples}
    if sigma is not None and sigma != 1:
        found |= {"sigma": sigma, "sigma^2": sigma**2, "1/sigma": 1 / sigma, "1/sigma^2": sigma**-2}
    found = {"1": 1.0} | {name: value for name, value in found.items() if value != 1}
    return found | {f"-{name}": -value for name, value in found.items()}


def products(factors: Mapping[str, float]) -> dict[str, float]:
    """Products of two factors, such as ``1/2 sigma^2``: a mean over both members of each pair, say."""
    plain = {n: v for n, v in factors.items() if not n.startswith("-") and n != "1"}
    found: dict[str, float] = {}
    for (a, x), (b, y) in combinations(plain.items(), 2):
        taken = [1.0, *plain.values(), *found.values()]
        if not any(isclose(x * y, value, rel_tol=1e-6) for value in taken):
            found[f"{a} {b}"] = x * y
    return found | {f"-{name}": -value for name, value in found.items()}


def looks_like(low: float, high: float, factors: Mapping[str, float]) -> dict[str, float]:
    """The factors that an interval holds; where it holds none, products of two of them."""
    names = within(low, high, factors)
    more = {} if names else products(factors)
    return {n: factors[n] for n in names} or {n: more[n] for n in within(low, high, more)}


def within(low: float, high: float, factors: Mapping[str, float]) -> list[str]:
    """Names of the factors that an interval holds, the interval a little widened."""
    low, high = (x * (1 + SLACK if (x > 0) is up else 1 - SLACK) for x, up in ((low, False), (high, True)))
    return [name for name, value in factors.items() if low <= value <= high]


def spelled(name: str, factors: Mapping[str, float]) -> str:
    """A factor with its value: ``sigma^2 = 0.0001``."""
    value = f"{factors[name]:.4g}"
    return name if name == value else f"{name} = {value}"


def off(low: float, high: float) -> bool:
    """Whether an interval of gains is farther from 1 than smoothing explains."""
    return low > 1 + NEAR or high < 1 - NEAR
