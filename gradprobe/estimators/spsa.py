"""SPSA: a central difference along one random direction of signs, in all weights at once."""

from __future__ import annotations

from dataclasses import dataclass

from gradprobe.estimators import register
from gradprobe.estimators.perturbation import ES


@register(
    "spsa",
    summary="simultaneous perturbation: central difference along random signs in all weights at once; in pairs",
    order=43,
    color="#AA4499",
    target="surrogate",
    formula="(L(theta + sigma z) - L(theta - sigma z)) / (2 sigma z), z random signs",
    source="Spall 1992, IEEE Transactions on Automatic Control 37(3), eq. 2.2",
)
@dataclass(frozen=True)
class SPSA(ES):
    """Spall's two-point estimate: each coordinate's difference is divided by its own sign, which is its product.

    A copy is one forward and a pair of copies one of Spall's estimates, so copies come in pairs. ``sigma`` is Spall's
    c. Its mean is ``E[(L(theta + sigma z) - L(theta - sigma z)) z / (2 sigma)]``: the gradient where the loss is
    quadratic, and off it by O(sigma^2) elsewhere; signs have no score, so it is no gradient of a smoothed loss.

    The options are those of ``es``, with other defaults: no centre, since the difference of a pair has none left.
    """

    injection: str = "joint"
    noise: str = "rademacher"
    antithetic: bool = True
    centre: str = "none"
