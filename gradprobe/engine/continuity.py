"""Whether backprop is the derivative of the loss along the noise, as the pathwise gradient needs it to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import make_noise
from gradprobe.engine.sites import Site, add_noise, noise_at, shifted

PATHS = 4
"""Copies of noise along which the loss is followed."""

STEPS = (8, 64)
"""Steps on each path. Where a few do not do, more are tried: the error of a smooth loss falls with their square, that
of kinks (ReLU, pooling) faster than their number, and that of a jump not at all."""

SCALES = (1.0, 0.1, 10.0, 100.0, 1000.0)
"""Sizes of the noise, in those of the draw: the next where rounding hides what more steps show. What holds along
a path holds along every other, so a longer one says the same."""

PART = 0.1
"""Of the change that backprop sees, what it may miss."""

ROUNDING = 64
"""Units in the last place of the loss below which a difference says nothing."""

TRIAL = Streams(0, 0, "continuity")


Noise = dict[Site, torch.Tensor]


def pathwise_holds(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    """Whether the slopes that backprop gives add up to the changes of the loss along the draw's noise.

    For a loss that is continuous in the noise, its change from ``v + s sigma eps`` to ``v + t sigma eps`` is the
    integral of the derivative between the two. A threshold (spikes), a rounding or an argmax makes the loss jump,
    which no derivative sees; a surrogate gradient or a ``detach`` gives slopes that are none. The noise-averaged
    backprop gradient is then not the gradient of the smoothed loss. The changes over small steps are compared with
    slope times step at their midpoints, as root mean squares over steps and paths.

    Args:
        problem: The problem.
        draw: Whose noise.
        layers: The layers that are noisy together.
    """
    if draw.alone:
        draw = replace(draw, share="batch")
    draw = replace(draw, antithetic=False)
    noise = make_noise(problem, draw, layers, Block(0, PATHS), TRIAL)
    for scale in SCALES:
        copies = [{site: scale * eps[k] for site, eps in noise.items()} for k in range(PATHS)]
        followed = [_Path(problem, draw, layers, eps) for eps in copies]
        found = None
        for steps in STEPS:
            found = _adds_up(followed, steps)
            if found is not False:
                break
        if found is not None:
            return found
    return True  # the loss does not feel this noise at any size


def _adds_up(paths: Sequence[_Path], steps: int) -> bool | None:
    """Whether slopes add up to changes; None if the changes are too small to tell."""
    changes, slopes = [], []
    for path in paths:
        losses = [path.loss(i / steps) for i in range(steps + 1)]
        changes += [after - before for before, after in itertools.pairwise(losses)]
        slopes += [path.slope((i + 0.5) / steps) / steps for i in range(steps)]
    known = [(c, s) for c, s in zip(changes, slopes, strict=True) if math.isfinite(c) and math.isfinite(s)]
    if not known:
        return True  # nothing is known of it: the reference itself will say that it is not finite
    missing = math.sqrt(sum((c - s) ** 2 for c, s in known) / len(known))
    allowed = PART * math.sqrt(sum(s * s for _, s in known) / len(known))
    rounding = paths[0].rounding
    return None if max(missing, allowed) < rounding else missing <= allowed


@dataclass(frozen=True)
class _Path:
    """The loss at shares of one copy's noise."""

    problem: Runnable
    draw: Draw
    layers: Sequence[Layer]
    noise: Noise

    @property
    def rounding(self) -> float:
        eps = max(torch.finfo(p.dtype).eps for p in self.problem.parameters.values())
        return ROUNDING * eps * abs(self.loss(0.0))

    def loss(self, at: float) -> float:
        """The objective at a share of the noise."""
        with torch.no_grad():
            share = torch.tensor(at, device=self.problem.device)
            with self._noisy(share) as values:
                return float(self.problem.total(self.problem.evaluate(values)))

    def slope(self, at: float) -> float:
        """Its derivative with respect to the share, by backprop."""
        share = torch.tensor(at, device=self.problem.device, requires_grad=True)
        with torch.enable_grad(), self._noisy(share) as values:
            (slope,) = self.problem.gradient(values, [share])
        return 0.0 if slope is None else float(slope)

    @contextmanager
    def _noisy(self, share: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
        """Values of the parameters to run with; hooks add noise to activations meanwhile."""
        if self.draw.where == "weights":
            yield self._moved(share)
            return

        def edit(call: Call, output: Any) -> Any:
            return add_noise(output, self.draw, call.layer, share * noise_at(self.noise, call))

        with intercept(self.problem.twin, paths(self.layers), edit) as calls:
            calls.restart()
            yield {}

    def _moved(self, share: torch.Tensor) -> dict[str, torch.Tensor]:
        return shifted(
            self.problem, self.draw, self.layers, {site: share * eps for site, eps in self.noise.items()}
        )
