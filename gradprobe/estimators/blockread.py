"""Reading one block of a draw as its copies come in: sums that memory bounds, whatever the number of copies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.core.level import noisy
from gradprobe.core.rows import Rows, along, fold
from gradprobe.core.streams import Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.run import Outcome
from gradprobe.engine.signs import opened
from gradprobe.engine.sites import Site
from gradprobe.engine.storing import Inputs, Noise
from gradprobe.estimators.pulling import Directions, alike, clean_inputs, cleared, credit, pull, pull_copies
from gradprobe.estimators.readout import ReadOut, kept_copies
from gradprobe.problems.problem import Problem

Score = Callable[[torch.Tensor], torch.Tensor]

Waiting = Sequence[tuple[Site, torch.Tensor]]
"""Calls with noisy inputs, and the cotangents of their copies ``[m, *output]``."""

CHUNK = 2**25
"""Bytes of the inputs and cotangents of calls that are pulled back at once."""

SMALL = 16_384
"""Numbers of noise in a copy up to which all copies are summed at once; more stay in cache one at a time."""


@dataclass
class Read:
    """What one block of a draw gave.

    Attributes:
        directions: For each read-out, parameter -> mean direction over the block.
        nonfinite: Copies that count as 0 because a loss was not finite; of a plan's whole estimates any share.
        extras: For each read-out further numbers of the block ``[P, ...]`` by name, P its parameters in order.
        bytes: Of a copy's intermediates ``[2]``, from its forward to its read-out: as they were kept, and as numbers.
    """

    directions: list[Directions]
    nonfinite: float
    extras: list[dict[str, np.ndarray]] = field(default_factory=list)
    bytes: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))


@dataclass(frozen=True)
class Reading:
    """A draw on layers of a problem, and how it is read.

    Attributes:
        problem: The problem.
        draw: The draw.
        layers: The layers that are served, in execution order; or the levels of their noise.
        readouts: How to read it.
        streams: Noise of the seed.
        per_sample: Whether what each sample contributes is read too.
        storage: How intermediates are kept until they are read: ``"float32"``, ``"int8"`` or ``"bits"``.
    """

    problem: Problem
    draw: Draw
    layers: Sequence[Layer]
    readouts: Sequence[ReadOut]
    streams: Streams
    per_sample: bool = False
    storage: str = "float32"

    @property
    def noisy(self) -> list[Layer]:
        """The layers that are noisy together."""
        return noisy(self.layers)


@dataclass(frozen=True)
class Step:
    """Copies that come in together: those at ``at`` of an outcome, and which of them count ``[m]``."""

    outcome: Outcome
    at: slice
    kept: torch.Tensor


class BlockRead:
    """The directions of one block, summed over its copies in any number of steps.

    Cotangents of calls whose input is clean are summed in activation space and pulled back once; where the input
    is noisy they are pulled back copy by copy.

    Args:
        reading: What is read; its problem is frozen.
        copies: Copies in the block.
        known: The losses of every step to come, where a centre needs them all beforehand.
        layout: Memory layout of images.
    """

    reads_signs: ClassVar[bool] = True
    """Whether it needs no more of noise and inputs than its read-outs say."""

    def __init__(
        self, reading: Reading, copies: int, known: Sequence[Outcome] = (), layout: str = ""
    ) -> None:
        self.problem, self.draw = reading.problem, reading.draw
        self.layers, self.readouts = reading.layers, reading.readouts
        self.copies, self.known, self.layout = copies, list(known), layout
        self.clean = clean_losses(self.problem, self.draw)
        self.steps = self.seen = self.lost = 0
        self.bytes = np.zeros(2)
        self.sums: dict[Any, torch.Tensor] = {}
        for readout in self.readouts:
            readout.check_block(copies, self.draw.antithetic)

    @property
    def full(self) -> bool:
        """Whether all copies are in."""
        return self.seen >= self.copies

    def add(self, outcome: Outcome, at: slice) -> None:
        """Add the copies at ``at`` of an outcome."""
        losses = outcome.losses[at]
        step = Step(outcome, at, kept_copies(losses, self.draw.antithetic))
        read = self._weights if self.draw.where == "weights" else self._activations
        for readout in {readout.cotangent: readout for readout in self.readouts}.values():
            centred = self._centred(readout, losses, step.kept, [o.losses for o in self.known], self.clean)
            read(step, readout, centred / self.copies)
        self.steps, self.seen = self.steps + 1, self.seen + len(losses)
        self.lost += int((~step.kept).sum())
        self.bytes = np.maximum(self.bytes, outcome.bytes)

    def read(self) -> Read:
        """The directions, once all copies are in."""
        pulled = self._pulled_weights if self.draw.where == "weights" else self._pulled_activations
        return Read([pulled(readout) for readout in self.readouts], self.lost, bytes=self.bytes)

    def _centred(
        self,
        readout: ReadOut,
        losses: torch.Tensor,
        kept: torch.Tensor,
        steps: Sequence[torch.Tensor],
        clean: torch.Tensor,
    ) -> torch.Tensor:
        """Losses of a step minus their centre; ``steps`` are those of all steps, where the centre needs them."""
        paired = self.draw.antithetic
        if not readout.shaping.whole or len(losses) == self.copies:
            return readout.centred(losses, clean, kept, paired)
        every = _in_order(steps, paired)
        centred = readout.centred(every, clean, kept_copies(every, paired), paired)
        return _out_of_order(centred, [len(x) for x in steps], paired)[self.steps]

    def _weights(self, step: Step, readout: ReadOut, centred: torch.Tensor) -> None:
        """Centred loss x score of the weights' noise, summed over copies (and samples)."""
        if self.draw.share == "sample":
            assert self.problem.weights is not None
            centred = centred * self.problem.weights
        if step.outcome.halved:  # the score of the negative is the negative of the score
            first, second = centred.chunk(2)
            centred = first - second
        family = step.outcome.family
        for layer in self.layers:
            weighted = centred * readout.scale(self.draw, layer.name)
            for number, name in enumerate(layer.parameters):
                score = readout.score(family, step.outcome.drawn((layer.name, number), step.at))
                factor = weighted.to(score.dtype)
                self._sum((*readout.cotangent, name), torch.tensordot(factor, score, dims=factor.ndim))

    def _activations(self, step: Step, readout: ReadOut, centred: torch.Tensor) -> None:
        """Cotangents of each call: summed where the input is clean, pulled back where it is noisy."""
        noisy = step.outcome.segments[0].inputs
        for layer in self.layers:
            weighted = credit(self.problem, layer, centred) * readout.scale(self.draw, layer.name)
            waiting: list[tuple[Site, torch.Tensor]] = []
            for number in range(layer.calls):
                site = (layer.name, number)
                noise = step.outcome.noise[site][step.at]
                factor = _spread(weighted.to(noise.dtype), layer, noise.ndim - 1)
                score = functools.partial(readout.score, step.outcome.family)
                if site in noisy:
                    waiting.append((site, factor * score(opened(noise))))
                else:
                    self._accumulate((*readout.cotangent, site), factor, noise, score)
                if sum(cotangents.nbytes for _, cotangents in waiting) > CHUNK or number + 1 == layer.calls:
                    self._pull_each(step, readout, layer, waiting)
                    waiting = []

    def _pull_each(self, step: Step, readout: ReadOut, layer: Layer, waiting: Waiting) -> None:
        """Pull back the cotangents of calls with noisy inputs: many calls that are alike at once."""
        for calls, encoded in self._alike(step, layer, waiting):
            inputs, cotangents = [call[0] for call in calls], torch.stack([call[1] for call in calls])
            for encode in self._encodings(readout):
                found = pull_copies(self.problem, layer, inputs, cotangents, encode, encoded)
                for name, value in found.items():
                    self._sum((*readout.cotangent, encode, name), value)

    def _encodings(self, readout: ReadOut) -> set[bool]:
        """What is done to the input by the read-outs that share its cotangents."""
        return {r.encodes_input for r in self.readouts if r.cotangent == readout.cotangent}

    def _alike(
        self, step: Step, layer: Layer, waiting: Waiting
    ) -> Iterator[tuple[list[tuple[Inputs, torch.Tensor]], bool]]:
        """Inputs and cotangents of calls that are alike, and whether signs are kept of them; not too many at once."""
        calls: list[tuple[Inputs, torch.Tensor]] = []
        taken, before = 0, False
        for site, cotangents in waiting:
            for segment in step.outcome.segments:
                mine = cotangents[segment.copies]
                rows = Rows(self.problem.batch_size * len(mine), layer.axis)
                encoded = site in segment.encoded
                inputs = opened(segment.inputs[site]) if encoded else segment.inputs[site]
                inputs = cleared(inputs, step.kept[segment.copies], rows)
                size = mine.nbytes + sum(t.nbytes for t in tensors(inputs))
                same = calls and encoded == before and alike(calls[0][0], inputs)
                if calls and (not same or taken + size > CHUNK):
                    yield calls, before
                    calls, taken = [], 0
                calls.append((inputs, fold(mine, layer.axis)))
                taken, before = taken + size, encoded
        if calls:
            yield calls, before

    def _accumulate(self, key: Any, factor: torch.Tensor, noise: Noise, score: Score) -> None:
        """Sum of factor x score over copies, in the memory layout of the noise."""
        if key not in self.sums:
            shape = torch.broadcast_shapes(factor.shape[1:], noise.shape[1:])
            self.sums[key] = torch.zeros_like(opened(noise[:1])[0].expand(shape))
        total = self.sums[key]
        if total.numel() <= SMALL:
            total += (factor * score(opened(noise))).sum(0)
            return
        for k in range(len(noise)):
            total.addcmul_(factor[k], score(opened(noise[k : k + 1])[0]))

    def _sum(self, key: Any, value: torch.Tensor) -> None:
        self.sums[key] = self.sums[key] + value if key in self.sums else value

    def _pulled_weights(self, readout: ReadOut) -> Directions:
        names = [name for layer in self.layers for name in layer.parameters]
        return {name: self.sums[*readout.cotangent, name] for name in names}

    def _pulled_activations(self, readout: ReadOut) -> Directions:
        found = {}
        for layer in self.layers:
            for name in layer.parameters:
                zeros = torch.zeros_like(self.problem.parameters[name])
                found[name] = self.sums.get((*readout.cotangent, readout.encodes_input, name), zeros)
            for number in range(layer.calls):
                site = (layer.name, number)
                cotangent = self.sums.get((*readout.cotangent, site))
                if cotangent is not None:
                    inputs = clean_inputs(self.problem, self.layers, self.layout, self.draw.derived)[site]
                    pulled = pull(self.problem, layer, inputs, cotangent, readout.encodes_input)
                    found |= {name: found[name] + value for name, value in pulled.items()}
        return found


def _spread(weighted: torch.Tensor, layer: Layer, ndim: int) -> torch.Tensor:
    """Factors ``[m, B]`` (or ``[m]``, the copies') so that they multiply noise ``[m, *output]``."""
    return along(weighted, layer.axis, ndim) if weighted.ndim > 1 else weighted.view(-1, *[1] * ndim)


def clean_losses(problem: Problem, draw: Draw) -> torch.Tensor:
    """Losses without noise in the shape of a draw's: ``[B]``, or ``[]`` for one loss a copy."""
    clean = problem.clean_losses()
    return problem.total(clean) if draw.where == "weights" and draw.share == "batch" else clean


def _in_order(steps: Sequence[torch.Tensor], paired: bool) -> torch.Tensor:
    """Losses of a block from those of its steps, antithetic partners half a block apart."""
    if not paired:
        return torch.cat(list(steps))
    halves = [x.chunk(2) for x in steps]
    return torch.cat([h[0] for h in halves] + [h[1] for h in halves])


def _out_of_order(block: torch.Tensor, sizes: Sequence[int], paired: bool) -> list[torch.Tensor]:
    """Inverse of :func:`_in_order`."""
    if not paired:
        return list(block.split(list(sizes)))
    first, second = (half.split([n // 2 for n in sizes]) for half in block.chunk(2))
    return [torch.cat(pair) for pair in zip(first, second, strict=True)]
