"""The HSIC bottleneck: each layer forgets the inputs and keeps the targets, by an objective of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from gradprobe.core.errors import positive
from gradprobe.core.hooks import first_tensor, tensors
from gradprobe.core.rows import Rows
from gradprobe.core.streams import Streams
from gradprobe.estimators import register
from gradprobe.estimators._cuts import Cut, by_sample, cut_refusals, cut_slopes, sample_rows
from gradprobe.estimators.base import Block, Directions, Estimator, Layer, Problem
from gradprobe.problems.seen import Seen

RIDGE = 1e-5
"""epsilon of the normalised HSIC."""


@register(
    "hsic",
    summary="HSIC bottleneck: each layer has its own objective, to forget inputs and keep targets; no noise, flat in "
    "copies",
    order=63,
    color="#117733",
    target="surrogate",
    formula="slope of sum_l nHSIC(Z_l, X) - beta nHSIC(Z_l, Y), Z_l cut off after layer l",
    source="Ma, Lewis, Kleijn 2020 (arXiv 1908.01580)",
)
@dataclass(frozen=True)
class HSICBottleneck(Estimator):
    """Each layer minimises ``nHSIC(Z, X) - beta nHSIC(Z, Y)`` of what arrives at the layers that follow it.

    Ma, Lewis, Kleijn 2020 (arXiv 1908.01580). Z is what arrives at a linear layer, a convolution or the gates of a
    recurrent layer; there the graph is cut, so that no error passes through a matrix. X are the inputs and Y the
    targets (one-hot for classes). ``nHSIC(U, V) = tr(Ku (Ku + eps m I)^-1 Kv (Kv + eps m I)^-1)`` over the batch of m
    samples, with kernels ``exp(-|u - u'|^2 / (2 width^2 d))`` of d values, times ``I - 11^T/m``, eps = 1e-5, in
    float64. The last such layer, and what comes after it, get the gradient of the loss (the paper trains them apart).
    Several calls of one layer are several terms; residual branches carry the terms of later layers to earlier ones.

    Its mean is a field of its own, and its length says nothing. Deterministic: the same for every copy and seed, a
    flat line in copies. It needs two samples at least, inputs that are real numbers, and a row for each sample.

    Attributes:
        beta: Weight of the targets (the authors' code: 50).
        width: Width of the kernels (the authors' code: 5).
    """

    stochastic: ClassVar[bool] = False
    uses_backward: ClassVar[bool] = True

    beta: float = 50.0
    width: float = 5.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        positive("width", self.width)

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """One forward, and a backward pass through each piece that the cuts leave."""
        samples = sample_rows(problem)

        def objective(seen: Seen, cuts: Sequence[Cut]) -> torch.Tensor:
            served = [cut for cut in cuts if not _obstacle(samples, seen, cut)]
            if not served:
                return seen.total
            given = self._normalised(_inputs(samples, seen))
            wanted = self._normalised(_targets(samples, seen))
            terms = (self._normalised(cut.rows) for cut in served)
            own = [((z * given.T).sum() - self.beta * (z * wanted.T).sum()) for z in terms]
            return seen.total + torch.stack(own).sum()

        return cut_slopes(problem, layers, objective)

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Layers whose term cannot be had: of one sample, of words, or of values without a row for each sample."""
        samples = sample_rows(problem)
        return cut_refusals(problem, layers, lambda seen, cut: _obstacle(samples, seen, cut))

    def _normalised(self, rows: torch.Tensor) -> torch.Tensor:
        """``K (K + eps m I)^-1`` of values ``[m, d]``: ``[m, m]``."""
        rows = rows.double()
        size, features = rows.shape
        products = rows @ rows.T
        squares = products.diagonal()
        distances = (squares[:, None] + squares - 2 * products).clamp_min(0)
        kernel = torch.exp(-distances / (2 * self.width**2 * features))
        centred = kernel - kernel.mean(1, keepdim=True)
        ridge = RIDGE * size * torch.eye(size, dtype=rows.dtype, device=rows.device)
        return torch.linalg.solve(centred + ridge, centred)


def _obstacle(samples: Rows, seen: Seen, cut: Cut) -> str:
    """Why what arrives at a layer has no term; empty if it has."""
    if samples.size < 2:
        return "hsic compares the samples of a batch, and a batch of one has nothing to compare"
    if not _real(samples, seen.inputs):
        return "hsic compares inputs, and these are not real numbers with a row for each sample"
    if not _with_rows(samples, seen.target):
        return "hsic compares targets, and these have no row for each sample"
    if cut.axis is None:
        return f"its objective is of what arrives at {cut.layer!r}, which has no row for each sample"
    return ""


def _with_rows(samples: Rows, value: Any) -> list[torch.Tensor]:
    return [t for t in tensors(value) if samples.axis_of(t) is not None]


def _real(samples: Rows, value: Any) -> list[torch.Tensor]:
    return [t for t in _with_rows(samples, value) if t.is_floating_point()]


def _rows(samples: Rows, t: torch.Tensor) -> torch.Tensor:
    axis = samples.axis_of(t)
    assert axis is not None
    return by_sample(t, axis)


def _inputs(samples: Rows, seen: Seen) -> torch.Tensor:
    """All inputs of a sample in one row ``[m, d]``."""
    return torch.cat([_rows(samples, t).double() for t in _real(samples, seen.inputs)], 1)


def _targets(samples: Rows, seen: Seen) -> torch.Tensor:
    """All targets of a sample in one row ``[m, d]``; classes as one-hot vectors, 0 where a target does not count."""
    found = []
    for target in _with_rows(samples, seen.target):
        if not target.is_floating_point():
            target = target.long()
            one_hot = F.one_hot(target.clamp_min(0), _classes(seen.output, target))
            target = (one_hot * (target >= 0)[..., None]).movedim(-1, 1) if target.ndim > 1 else one_hot
        found.append(_rows(samples, target).double())
    return torch.cat(found, 1)


def _classes(output: Any, target: torch.Tensor) -> int:
    """How many classes there are: as many as the outputs along axis 1, or as are seen."""
    scores = first_tensor(output)
    least = int(target.max()) + 1
    known = scores is not None and scores.ndim == target.ndim + 1
    return max(scores.shape[1], least) if known and scores is not None else least
