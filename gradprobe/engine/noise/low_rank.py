"""Low-rank noise on weights: products of two thin matrices, as in EGGROLL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gradprobe.core.errors import whole
from gradprobe.engine.noise import Site, Wanted, register
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import fill_copies


@register(
    "low-rank", summary="weights: A B^T/sqrt(r) of normal thin matrices; no score, the mean is a surrogate"
)
@dataclass(frozen=True)
class LowRank:
    """``E = A B^T / sqrt(r)`` for each matrix, with A ``[m, r]`` and B ``[n, r]`` of independent N(0, 1).

    Source: EGGROLL, arXiv 2511.16652. Entries have mean 0, variance 1 and no correlation, so that ``(L - c) E/sigma``
    has the gradient as its mean for small sigma, and on quadratics for any. But they are neither normal (their fourth
    moment is 3 + 6/r, against 3) nor independent, and a score of theirs is not to be had: E takes its place. At a
    large sigma the mean is therefore a field of its own, which tends to the gradient of the Gaussian-smoothed loss
    like 1/r. For a loss of slope G one copy's mean square is |G|^2 (m n + 2 + 2 (m + n + 1)/r), as r grows that of
    Gaussian noise.

    A weight of more axes is a matrix of its first axis against all others: ``[out, in * kh * kw]`` of a convolution.
    Vectors, and matrices with a side of length 1, are normal: they have rank one already.

    What it saves is memory and products where a model is run with factors; here E itself is made, m n numbers from
    r (m + n), so that every model and engine can use it.

    Attributes:
        rank: r, 1 by default as in the paper.
    """

    exact = False
    where = ("weights",)
    independent = True

    rank: int = 1

    def __post_init__(self) -> None:
        whole("rank", self.rank)

    def noise(self, wanted: Wanted) -> dict[Site, torch.Tensor]:
        """Every site has a stream of its own; a copy's matrices A and B follow each other in it."""
        return {site: self._site(wanted, site, shape) for site, shape in wanted.shapes.items()}

    def _site(self, wanted: Wanted, site: Site, shape: tuple[int, ...]) -> torch.Tensor:
        repeats, own = shape[: wanted.lead], shape[wanted.lead :]
        rows, columns = (own[0], math.prod(own[1:])) if own else (1, 1)
        thin = min(rows, columns) == 1
        size = rows * columns if thin else self.rank * (rows + columns)
        count = len(wanted.copies)
        flat = torch.empty(count, math.prod(repeats) * size, dtype=torch.float32, device=wanted.device)
        fill_copies(Gaussian(), wanted.key(*site), wanted.copies, flat)
        if thin:
            return flat.view(count, *shape)
        a, b = flat.view(count, *repeats, size).split([self.rank * rows, self.rank * columns], -1)
        a = a.reshape(count, *repeats, self.rank, rows, 1) / math.sqrt(self.rank)
        b = b.reshape(count, *repeats, self.rank, 1, columns)
        found = a.select(-3, 0) * b.select(-3, 0)
        for k in range(1, self.rank):  # a matrix product would round otherwise in parts of another size
            found += a.select(-3, k) * b.select(-3, k)
        return found.view(count, *shape)

    def refusal(self, shapes: Mapping[Site, tuple[int, ...]]) -> str:
        """It serves every weight."""
        return ""

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``E``, in place of a score."""
        return noise
