"""MeZO: SPSA with Gaussian directions, as it fine-tunes language models."""

from __future__ import annotations

from dataclasses import dataclass

from gradprobe.engine.draw import Sigma
from gradprobe.estimators import register
from gradprobe.estimators.perturbation import ES


@register(
    "mezo",
    summary="MeZO: central difference along Gaussian noise in all weights at once; in pairs, sigma 0.001",
    order=44,
    color="#6699CC",
    target="smoothed",
    formula="(L(theta + sigma z) - L(theta - sigma z)) / (2 sigma) z, z Gaussian",
    source="Malladi et al. 2023, arXiv 2305.17333, definition 1",
)
@dataclass(frozen=True)
class MeZO(ES):
    """The estimate that MeZO steps along: antithetic ES in all weights at once without a centre.

    A copy is one forward and a pair of copies one of the paper's estimates; n pairs are its n-SPSA. Only the estimate
    is here: that MeZO perturbs weights in place and draws its noise twice saves memory and changes nothing else (up
    to rounding). Mean: the gradient of the loss smoothed by noise of standard deviation ``sigma`` in all weights.

    The options are those of ``es`` with the paper's defaults; ``sigma`` is its epsilon, 0.001.
    """

    injection: str = "joint"
    antithetic: bool = True
    sigma: Sigma = 0.001
    centre: str = "none"
