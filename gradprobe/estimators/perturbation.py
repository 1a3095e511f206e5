"""Likelihood ratio and evolution strategies, exact and sign-encoded: read-outs of one kind of draw.

With noise sigma eps on the output v of a layer with Jacobian J, LR uses (L - c) J^T eps / sigma (ALR paper,
eq. 1); its mean is the gradient of the loss smoothed by that noise. ALR (eq. 3) replaces J and eps by their
signs and drops 1/sigma: an unbiased estimate of a field of its own. ES and AES are the same with the noise on
the weights, where J is the identity.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw, Sigma
from gradprobe.engine.noise import make_family
from gradprobe.estimators import register
from gradprobe.estimators.base import Assignment, Estimator
from gradprobe.estimators.readout import ReadOut


@dataclass(frozen=True)
class Perturbation(Estimator):
    """A draw and a read-out, the same for every layer.

    Attributes:
        where: ``"activations"`` or ``"weights"``.
        injection: ``"layerwise"`` (one layer noisy at a time) or ``"joint"`` (all at once: one forward a copy
            serves all layers, at a higher variance).
        noise: ``gaussian``, ``laplace``, ``rademacher``, ``sobol``, or for weights ``low-rank(rank=1)``.
        antithetic: Pairs of copies with opposite noise.
        share: ``"sample"`` (own noise for each data point) or ``"batch"`` (one for all).
        sigma: Standard deviation of the noise: a number, or {layer glob: number}.
        centre: ``"clean"``, ``"none"``, ``"mean"`` or ``"rank"``; see :class:`ReadOut`.
        encode: ``"exact"``, ``"sign"``, ``"sign-noise"`` or ``"sign-input"``; see :class:`ReadOut`.
    """

    where: str = "activations"
    injection: str = "layerwise"
    noise: str = "gaussian"
    antithetic: bool = False
    share: str = "sample"
    sigma: Sigma = 0.01
    centre: str = "clean"
    encode: str = "exact"

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.draw.noise)  # one way to write it; options are checked now
        self.readout.check_draw(self.draw)

    @functools.cached_property
    def draw(self) -> Draw:
        """Its draw."""
        return Draw(self.where, self.injection, self.noise, self.antithetic, self.share, self.sigma)

    @functools.cached_property
    def readout(self) -> ReadOut:
        """Its read-out."""
        return ReadOut(self.centre, self.encode)

    @property
    def target(self) -> str:
        """``smoothed`` for an exact score of losses as they are, else ``surrogate``."""
        exact = self.encode == "exact" and make_family(self.noise).exact and self.readout.shaping.exact
        return "smoothed" if exact else "surrogate"

    def assignment(self, layers: Sequence[Layer]) -> Assignment:
        """The same draw and read-out for every layer."""
        return {layer.name: (self.draw, self.readout) for layer in layers}


@register(
    "lr",
    summary="likelihood ratio: noise on a layer's output, loss x score, pulled back through the layer",
    order=10,
    color="#E69F00",
    target="smoothed",
    formula="sum_b w_b (L_b - c_b) J_b^T eps_b / sigma",
    source="ALR, arXiv 2403.12320, eq. 1-2; ULR, arXiv 2305.08960",
)
@dataclass(frozen=True)
class LR(Perturbation):
    """Likelihood ratio (ALR paper, eq. 1-2; ULR, arXiv 2305.08960). Mean: gradient of the smoothed loss."""


@register(
    "alr",
    summary="LR with signs: of the noise and of the layer's input, without 1/sigma",
    order=11,
    color="#009E73",
    target="surrogate",
    formula="sum_b w_b (L_b - c_b) sign(J_b)^T sign(eps_b)",
    source="ALR, arXiv 2403.12320, eq. 3",
)
@dataclass(frozen=True)
class ALR(Perturbation):
    """Approximated likelihood ratio (arXiv 2403.12320, eq. 3). Mean: a field of its own (eq. 5)."""

    encode: str = "sign"


@register(
    "es",
    summary="evolution strategies: noise on a layer's weights, loss x score",
    order=20,
    color="#D55E00",
    target="smoothed",
    formula="(L - c) eps / sigma",
    source="Salimans et al., arXiv 1703.03864; ALR, arXiv 2403.12320, section 5",
)
@dataclass(frozen=True)
class ES(Perturbation):
    """Evolution strategies with one weight draw for the batch. Mean: gradient of the weight-smoothed loss."""

    where: str = "weights"
    share: str = "batch"


@register(
    "aes",
    summary="ES with the sign of the noise, without 1/sigma",
    order=21,
    color="#CC79A7",
    target="surrogate",
    formula="(L - c) sign(eps)",
    source="ALR, arXiv 2403.12320, section 5",
)
@dataclass(frozen=True)
class AES(Perturbation):
    """Sign-encoded ES. For small sigma its mean is sigma sqrt(2/pi) times the gradient under Gaussian noise."""

    where: str = "weights"
    share: str = "batch"
    encode: str = "sign"
