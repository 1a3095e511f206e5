"""Direct feedback alignment: each layer gets the error at the output through a random matrix of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from gradprobe.core.errors import whole
from gradprobe.core.hooks import tensors
from gradprobe.core.streams import Streams
from gradprobe.estimators import register
from gradprobe.estimators._cuts import Cut, by_sample, cut_refusals, cut_slopes, sample_rows
from gradprobe.estimators.base import Block, Directions, Estimator, Layer, Problem
from gradprobe.problems.seen import Seen

CHUNK = 2**22
"""Numbers of a matrix that are drawn at once; a matrix is never held as a whole."""

MOST = 2**31
"""Numbers in the largest matrix that is drawn: some ten seconds."""


@register(
    "dfa",
    summary="direct feedback alignment: each layer gets the output's error through a fixed random matrix; no noise, "
    "flat in copies",
    order=62,
    color="#88CCEE",
    target="surrogate",
    formula="delta_l = (B_l e) * f'(a_l), e = dL/d output, direction of W_l = delta_l x_l^T",
    source="Noekland 2016 (arXiv 1609.01596)",
)
@dataclass(frozen=True)
class DirectFeedback(Estimator):
    """Each input of a linear layer, a convolution or the gates of a recurrent layer gets ``B e`` for its error.

    Noekland 2016 (arXiv 1609.01596). ``delta_l = (B_l e) * f'(a_l)``, where e is the gradient of the objective with
    respect to what the loss is given, sample by sample, and ``B_l e`` takes the place of what backprop would bring to
    the input of the layer that follows l. The derivatives of what lies before that input (activation, norm, pooling,
    residual sums, an LSTM's cell states) are exact; where several such layers see the same values, or a residual
    branch passes them by, what they get is added. The last such layer and what comes after it get the gradient.
    B belongs to the parameter that multiplies the input: one for all calls of a recurrent layer.

    Its mean is a field of its own. Deterministic: the same for every copy and seed, a flat line in copies. Samples
    are rows: layers whose error would have to come from values without a row for each sample are refused.

    Attributes:
        feedback_seed: Which random matrices; no run's seed or root seed moves them. Their entries are uniform within
            1/sqrt(number of outputs of a sample), as torch would initialise a layer from the outputs to there.
    """

    stochastic: ClassVar[bool] = False
    uses_backward: ClassVar[bool] = True

    feedback_seed: int = 0

    def __post_init__(self) -> None:
        whole("feedback_seed", self.feedback_seed, 0)

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """One forward, and a backward pass through each piece that the cuts leave."""

        def objective(seen: Seen, cuts: Sequence[Cut]) -> torch.Tensor:
            served = [cut for cut in cuts if cut.axis is not None]
            error = _error(problem, seen) if served else None
            total = seen.total
            for cut in served:
                if error is not None and not self._obstacle(error, cut):
                    rows = cut.rows
                    total = total + (rows * self._projected(cut, rows.shape[1], error.to(rows))).sum()
            return total

        return cut_slopes(problem, layers, objective)

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Layers whose error would have to come from values without a row for each sample."""

        def obstacle(seen: Seen, cut: Cut) -> str:
            error = _error(problem, seen)
            return self._obstacle(error, cut)

        return cut_refusals(problem, layers, obstacle)

    def matrix(self, name: str, features: int, outputs: int) -> torch.Tensor:
        """B of a parameter's inputs, ``[features, outputs]``, float64.

        Args:
            name: Name of the parameter, which is its key.
            features: Values that a sample has there.
            outputs: Values that a sample has in what the loss is given.
        """
        return torch.cat(list(self._drawn(name, features, outputs)))

    def _drawn(self, name: str, features: int, outputs: int) -> Iterator[torch.Tensor]:
        """The matrix, some of its rows at a time."""
        stream = Streams(self.feedback_seed, 0, "feedback").generator("uniform", "activations", name, 0, 0)
        bound, step = 1 / math.sqrt(outputs), max(CHUNK // outputs, 1)
        for first in range(0, features, step):
            shape = (min(step, features - first), outputs)
            yield torch.from_numpy(stream.uniform(-bound, bound, shape))

    def _projected(self, cut: Cut, features: int, error: torch.Tensor) -> torch.Tensor:
        """``B e`` of each sample ``[B, features]``."""
        drawn = self._drawn(cut.matrix, features, error.shape[1])
        return torch.cat([error @ part.to(error).T for part in drawn], 1)

    def _obstacle(self, error: torch.Tensor | None, cut: Cut) -> str:
        if cut.axis is None:
            return (
                f"its error would come from what arrives at {cut.layer!r}, which has no row for each sample"
            )
        if error is None:
            return "the loss depends on no output, or not only on one, that has a row for each sample"
        features = cut.tensor.numel() // len(error)
        if features * error.shape[1] > MOST:
            return (
                f"a matrix from {error.shape[1]} outputs to the {features} values of a sample that arrive at "
                f"{cut.layer!r} would be too large"
            )
        return ""


def _error(problem: Problem, seen: Seen) -> torch.Tensor | None:
    """``d total / d output`` ``[B, outputs]``; None if not just one output has a row for each sample."""
    given = [t for t in tensors(seen.output) if t.requires_grad]
    if not given:
        return None
    found = torch.autograd.grad(seen.total, given, retain_graph=True, allow_unused=True)
    used = [(t, g) for t, g in zip(given, found, strict=True) if g is not None]
    if len(used) != 1:
        return None
    output, error = used[0]
    axis = _output_axis(problem, seen, output)
    return None if axis is None else by_sample(error, axis)


def _output_axis(problem: Problem, seen: Seen, output: torch.Tensor) -> int | None:
    """Axis of the samples in the output: that along which a sample's loss depends on its row alone."""
    samples = sample_rows(problem)
    fits = [axis for axis in range(output.ndim) if output.shape[axis] == samples.size]
    if isinstance(problem.loss, str):  # a named loss is that of rows of the first axis
        return 0 if 0 in fits else None
    if problem.loss_per == "copy":
        return samples.axis_of(output)
    if len(fits) < 2:
        return next(iter(fits), None)
    (alone,) = torch.autograd.grad(seen.losses[0], output, retain_graph=True)
    others = (alone.narrow(axis, 1, samples.size - 1) for axis in fits)
    return next((axis for axis, rest in zip(fits, others, strict=True) if not bool(rest.any())), None)
