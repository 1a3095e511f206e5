"""EGGROLL: evolution strategies with low-rank noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradprobe.core.errors import one_of
from gradprobe.core.layer import Layer
from gradprobe.core.spec import label
from gradprobe.engine.draw import Sigma
from gradprobe.estimators import register
from gradprobe.estimators.base import Assignment, Estimator
from gradprobe.estimators.perturbation import ES


@register(
    "eggroll",
    summary="ES with low-rank noise A B^T/sqrt(r) on each weight matrix",
    order=42,
    color="#999933",
    target="surrogate",
    formula="mean over copies of (L(W + sigma E) - L(W)) E/sigma, E = A B^T/sqrt(r), A and B standard normal",
    source="Sarkar et al. 2025 (EGGROLL), arXiv 2511.16652",
)
@dataclass(frozen=True)
class EGGROLL(Estimator):
    """``es(noise=low-rank(rank=r))``: E = A B^T/sqrt(r) of normal A ``[m, r]`` and B ``[n, r]`` for each matrix.

    Source: EGGROLL, arXiv 2511.16652. Formula: mean over copies of (L(W + sigma E) - L(W)) E/sigma. Its mean is the
    gradient up to sigma squared (on quadratics for any sigma); E takes the place of a score that low-rank noise does
    not have, so at a large sigma it is a field of its own that tends to what ES has like 1/r. Half-power copies of an
    m x n matrix are m n + 1 + 2 (m + n + 1)/r, those of ES for r -> inf: rank 1 costs about 2/m + 2/n more.

    The paper's code has antithetic pairs and all layers noisy at once (``antithetic=True, injection=joint``), and
    divides losses by their standard deviation, which changes lengths only. What is measured here is the quality of
    its directions: the noise is made whole, not kept in factors. For convolutions and vectors see
    :class:`gradprobe.engine.noise.low_rank.LowRank`.

    Attributes:
        rank: r. 1 as in the paper: cheapest where factors are kept, and hardly dearer in copies.
        injection: As for ``es``; so are ``antithetic``, ``share``, ``sigma`` and ``centre``.
        encode: ``"exact"`` or ``"sign"``: of E, at rank 1 sign(A) sign(B)^T.
    """

    rank: int = 1
    injection: str = "layerwise"
    antithetic: bool = False
    share: str = "batch"
    sigma: Sigma = 0.01
    centre: str = "clean"
    encode: str = "exact"

    def __post_init__(self) -> None:
        one_of("encode", self.encode, ("exact", "sign"))
        _ = self.es  # its options are checked now

    @property
    def es(self) -> ES:
        """The ES that it is."""
        return ES(
            injection=self.injection,
            noise=label("low-rank", {"rank": self.rank}),
            antithetic=self.antithetic,
            share=self.share,
            sigma=self.sigma,
            centre=self.centre,
            encode=self.encode,
        )

    def assignment(self, layers: Sequence[Layer]) -> Assignment:
        """The same draw and read-out for every layer."""
        return self.es.assignment(layers)
