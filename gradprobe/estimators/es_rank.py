"""ES with the ranks of the losses, as in OpenAI-ES."""

from __future__ import annotations

from dataclasses import dataclass

from gradprobe.estimators import register
from gradprobe.estimators.perturbation import ES


@register(
    "es-rank",
    summary="ES weighted by the centred rank of each loss in its block, not by the loss; blocks of 2 or more",
    order=41,
    color="#661100",
    target="surrogate",
    formula="(rank of L in its block / (m - 1) - 1/2) eps / sigma",
    source="OpenAI-ES: Salimans et al. 2017, arXiv 1703.03864, section 2",
)
@dataclass(frozen=True)
class RankES(ES):
    """ES with fitness shaping: losses are replaced by centred ranks within the block of m copies.

    OpenAI-ES itself is ``es-rank(antithetic=True, injection=joint)``, its population the block; by default layers are
    noisy one at a time and without pairs, like ``es``, so that both read the same draw. The block is part of the
    method; see :class:`~gradprobe.estimators.centres.rank.CentredRank` for what it changes, and for the mean: a
    field of its own, near the gradient's direction where the loss is nearly linear over the noise, with a length that
    the loss's scale does not move.
    """

    centre: str = "rank"
