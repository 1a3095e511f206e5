"""Reading one block of a draw for the level of its noise: loss x score of sigma, with nothing to pull back.

Noise ``v = u + sigma eps`` has the density ``p(eps)/sigma``, whose score with respect to sigma is ``(eps s(eps) -
1)/sigma``, s the score of unit noise: ``(eps^2 - 1)/sigma`` for Gaussian noise (arXiv 2403.12320, eq. 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradprobe.core.level import Level
from gradprobe.engine.run import Outcome
from gradprobe.estimators.blockread import SMALL, BlockRead, Read, Reading, Step
from gradprobe.estimators.pulling import credit
from gradprobe.estimators.readout import ReadOut


class LevelRead(BlockRead):
    """The derivative of one block's mean loss with respect to levels of noise, summed over its copies.

    Args:
        reading: What is read; its layers are levels, its problem is frozen.
        copies: Copies in the block.
        known: The losses of every step to come, where a centre needs them all beforehand.
        layout: Memory layout of images.
    """

    reads_signs = False

    def __init__(
        self, reading: Reading, copies: int, known: Sequence[Outcome] = (), layout: str = ""
    ) -> None:
        super().__init__(reading, copies, known, layout)
        self.levels = [x for x in reading.layers if isinstance(x, Level)]

    def read(self) -> Read:
        """The derivatives, once all copies are in."""
        found = [
            {x.parameters[0]: self.sums[*readout.cotangent, x.name] for x in self.levels}
            for readout in self.readouts
        ]
        return Read(found, self.lost, bytes=self.bytes)

    def _activations(self, step: Step, readout: ReadOut, centred: torch.Tensor) -> None:
        """Loss x score of sigma, summed over copies, samples and positions, and over neurons that share it."""
        for level in self.levels:
            layer = level.noisy
            weighted = credit(self.problem, layer, centred) * readout.scale(self.draw, layer.name)
            keep = [layer.axis] if weighted.ndim > 1 else []
            keep += [] if level.neurons is None else [level.neurons % len(layer.outputs[0])]
            for number in range(layer.calls):
                scores = self._scores(step, (layer.name, number), keep)
                self._add(readout, level, weighted, scores)

    def _weights(self, step: Step, readout: ReadOut, centred: torch.Tensor) -> None:
        """Loss x score of sigma, summed over copies (and samples) and weights."""
        keep = []
        if step.outcome.halved:  # the negative of a noise has the same score of sigma
            first, second = centred.chunk(2)
            centred = first + second
        if self.draw.share == "sample":
            assert self.problem.weights is not None
            centred, keep = centred * self.problem.weights, [0]
        for level in self.levels:
            layer = level.noisy
            weighted = centred * readout.scale(self.draw, layer.name)
            for number in range(len(layer.parameters)):
                scores = self._scores(step, (layer.name, number), keep)
                self._add(readout, level, weighted, scores)

    def _scores(self, step: Step, site: tuple[str, int], keep: Sequence[int]) -> torch.Tensor:
        """Scores ``eps s(eps) - 1`` of a site ``[m, *kept]``, float64, summed over the other axes of the noise."""
        noise = step.outcome.drawn(site, step.at)
        family = step.outcome.family
        others = [axis for axis in range(noise.ndim - 1) if axis not in keep]

        def of(eps: torch.Tensor) -> torch.Tensor:
            score = eps * family.score(eps) - 1
            score = score.sum([1 + axis for axis in others]) if others else score
            return score.transpose(1, 2) if list(keep) != sorted(keep) else score

        at_once = len(noise) if noise[0].numel() <= SMALL else 1
        return torch.cat([of(eps) for eps in noise.split(at_once)]).double()

    def _add(self, readout: ReadOut, level: Level, weighted: torch.Tensor, scores: torch.Tensor) -> None:
        """Add factors ``[m]`` or ``[m, B]`` times scores ``[m]``, ``[m, B]`` (or ``[m, 1]``), neurons last."""
        factor = weighted if level.neurons is None else weighted[..., None]
        summed = (factor * scores).sum(list(range(weighted.ndim)))
        self._sum((*readout.cotangent, level.name), summed)
