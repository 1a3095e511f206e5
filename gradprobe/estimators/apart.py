"""What each sample contributes to a block's directions: its length, and what two halves of the block agree on.

A direction is a sum over samples of mean contributions: ``w_b (L_b - c_b)`` x score, pulled back. The copies of a
block are split in two halves (antithetic pairs stay together) with h1 + h2 = m copies, H1 and H2 a sample's mean
contributions in them, and stored are

    ``sample_product`` = <H1, H2>                                        mean |mu_b|^2
    ``sample_sqnorm``  = <H1, H2> + 2 h1 h2 / m^2 |H1 - H2|^2            = (|H1|^2 + |H2|^2)/2 for equal halves

so that tau_b = m/2 (sqnorm - product) is an unbiased estimate of the sample's variance per copy: one pull-back per
half and sample instead of one per copy and sample. With ``centre=mean`` the halves share their centre, which makes
the product 1/(m-1)^2 of itself too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradprobe.core.layer import Layer
from gradprobe.core.rows import Rows
from gradprobe.engine.draw import Draw
from gradprobe.engine.run import Outcome
from gradprobe.engine.sites import Site
from gradprobe.engine.storing import Noise
from gradprobe.estimators.blockread import BlockRead, Read, Reading, Score, Step, Waiting
from gradprobe.estimators.pulling import clean_inputs, cleared
from gradprobe.estimators.pulling_apart import pull_apart, sample_axes, samples_at_once, some_samples
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem

MOMENTS = ("sample_sqnorm", "sample_product")
"""What a read has for each sample; the names of :mod:`gradprobe.store.schema`."""


def apart_refusal(
    problem: Problem, layer: Layer, draw: Draw, block: int, readouts: Sequence[ReadOut] = ()
) -> str:
    """Why contributions of samples to a layer cannot be told apart; empty if they can.

    Args:
        problem: The problem.
        layer: One of its layers.
        draw: The draw.
        block: Copies in a block.
        readouts: How it is read.
    """
    for readout in readouts:
        if not readout.shaping.exact:
            return (
                f"centre={readout.centre} ties copies to each other, so halves of a block are not independent"
            )
    if problem.loss_per != "sample":
        return "the loss is one number for the whole batch, and samples have none of their own"
    if draw.where == "activations" and layer.credit != "sample":
        return "noise in one sample moves other samples' losses there, so it is credited with the copy's loss"
    if not draw.independent:
        return (
            f"under noise={draw.noise} the copies of a block are not independent, so that its halves are not"
        )
    least = 4 if draw.antithetic else 2
    if block < least:
        return f"a block of {block} has no two halves (at least {least} copies)"
    return ""


class ApartRead(BlockRead):
    """The directions of one block, and the moments of what each sample contributes to them.

    Where the input of a call is clean, cotangents are averaged over a half in activation space and pulled back once
    for each sample; where it is noisy they are pulled back for each copy and sample.

    Args:
        reading: What is read; its problem is frozen.
        copies: Copies in the block.
        known: The losses of every step to come, where a centre needs them all beforehand.
        layout: Memory layout of images.
    """

    def __init__(
        self, reading: Reading, copies: int, known: Sequence[Outcome] = (), layout: str = ""
    ) -> None:
        super().__init__(reading, copies, known, layout)
        self.pair = 2 if self.draw.antithetic else 1
        first = self.pair * (copies // self.pair // 2)
        self.halves = first, copies - first
        self.first: list[torch.Tensor] = []
        self.shared: dict[Any, list[torch.Tensor]] = {}

    def add(self, outcome: Outcome, at: slice) -> None:
        """Add the copies at ``at`` of an outcome."""
        drawn = torch.arange(len(outcome.losses[at]) // self.pair)
        first = self.seen + self.pair * drawn < self.halves[0]
        self.first.append(first.repeat(self.pair))
        super().add(outcome, at)

    def read(self) -> Read:
        """The directions and, for each read-out, the moments of samples ``[P, B]``, once all copies are in."""
        found = super().read()
        of = self._of_weights if self.draw.where == "weights" else self._of_activations
        for readout in self.readouts:
            each = [of(readout, layer) for layer in self.layers]
            moments = torch.cat(each, 1).cpu().numpy()
            found.extras.append(dict(zip(MOMENTS, moments, strict=True)))
        return found

    def _weights(self, step: Step, readout: ReadOut, centred: torch.Tensor) -> None:
        super()._weights(step, readout, centred)
        if self.draw.share == "batch":
            losses, every = _of_samples(step.outcome)[step.at], [_of_samples(o) for o in self.known]
            clean = self.problem.clean_losses()
            centred = self._centred(readout, losses, step.kept, every, clean) / self.copies
        assert self.problem.weights is not None
        centred = centred * self.problem.weights
        first = self.first[-1].to(centred.device)[:, None]
        for layer in self.layers:
            factor = centred * readout.scale(self.draw, layer.name)
            halves = torch.stack([factor * first, factor * ~first], 1)  # [m, 2, B]
            for number, name in enumerate(layer.parameters):
                score = readout.score(step.outcome.family, step.outcome.drawn((layer.name, number), step.at))
                if step.outcome.halved:
                    score = torch.cat([score, -score])
                key = (*readout.cotangent, name)
                if self.draw.share == "batch":
                    self.shared.setdefault(("score", *key), []).append(score.reshape(len(score), -1))
                    self.shared.setdefault(("factor", *key), []).append(halves)
                else:
                    each = torch.einsum(
                        "khb,kbd->bhd", halves.to(score.dtype), score.reshape(*score.shape[:2], -1)
                    )
                    self._sum(("halves", *key), each)

    def _accumulate(self, key: Any, factor: torch.Tensor, noise: Noise, score: Score) -> None:
        super()._accumulate(key, factor, noise, score)
        count, drawn = int(self.first[-1].sum()) // self.pair, len(noise) // self.pair
        for start in range(0, len(noise), drawn) if count else ():  # partners follow those that were drawn
            at = slice(start, start + count)
            super()._accumulate(("first", key), factor[at], noise[at], score)

    def _pull_each(self, step: Step, readout: ReadOut, layer: Layer, waiting: Waiting) -> None:
        super()._pull_each(step, readout, layer, waiting)
        for site, cotangents in waiting:
            self._pull_apart(step, readout, layer, site, cotangents)

    def _pull_apart(
        self, step: Step, readout: ReadOut, layer: Layer, site: Site, cotangents: torch.Tensor
    ) -> None:
        """The same for each sample on its own, into the sums of its half."""
        for segment in step.outcome.segments:
            mine, ones = cotangents[segment.copies], self.first[-1][segment.copies]
            rows = Rows(self.problem.batch_size * len(mine), layer.axis)
            inputs = cleared(segment.inputs[site], step.kept[segment.copies], rows)
            axes = sample_axes(inputs, rows)
            for k in range(len(mine)):
                own = some_samples(inputs, axes, k * self.problem.batch_size, self.problem.batch_size)
                for encode in self._encodings(readout):
                    pulled = pull_apart(self.problem, layer, own, axes, mine[k, None], encode)
                    for name, value in pulled.items():
                        key = ("half", int(not ones[k]), *readout.cotangent, encode, name)
                        self._sum(key, value.reshape(len(value), -1))

    def _of_weights(self, readout: ReadOut, layer: Layer) -> torch.Tensor:
        """Moments ``[2, P, B]`` of the samples."""
        found = []
        for name in layer.parameters:
            key = (*readout.cotangent, name)
            if self.draw.share == "sample":
                halves = self.sums["halves", *key]
                found.append(self._moments(self._pair(halves[:, 0], halves[:, 1]).transpose(0, 1)))
                continue
            score = torch.cat(self.shared["score", *key])
            gram = (score @ score.T).double()
            factor = torch.cat(self.shared["factor", *key])  # [m, 2, B]
            one, apart = self._pair(factor[:, 0].T, factor[:, 1].T)
            product = ((one @ gram) * (one - apart)).sum(1)
            found.append(self._combined(product, ((apart @ gram) * apart).sum(1)))
        return torch.stack(found, 1)

    def _of_activations(self, readout: ReadOut, layer: Layer) -> torch.Tensor:
        """Moments ``[2, P, B]`` of the samples, some samples at a time."""
        size = self.problem.batch_size
        every = clean_inputs(self.problem, self.layers, self.layout, self.draw.derived)
        sites = [(layer.name, number) for number in range(layer.calls)]
        clean = [site for site in sites if site in every and (*readout.cotangent, site) in self.sums]
        step = samples_at_once(layer, 3)
        found = []
        for start in range(0, size, step):
            count = min(step, size - start)
            pairs: dict[str, torch.Tensor] = {}
            for name in layer.parameters:
                which = (*readout.cotangent, readout.encodes_input, name)
                if ("half", 1, *which) in self.sums:
                    noisy = [self.sums["half", half, *which][start : start + count] for half in (0, 1)]
                    pairs[name] = self._pair(noisy[0], noisy[1]).transpose(0, 1)
            for site in clean:
                inputs, key = every[site], (*readout.cotangent, site)
                axes, total = sample_axes(inputs, Rows(size, layer.axis)), self.sums[key]
                first = self.sums.get(("first", key), torch.zeros_like(total))
                both = self._pair(first, total - first).narrow(1 + layer.axis, start, count)
                own = some_samples(inputs, axes, start, count)
                pulled = pull_apart(self.problem, layer, own, axes, both, readout.encodes_input)
                for name, value in pulled.items():
                    flat = value.reshape(count, 2, -1)
                    pairs[name] = pairs[name] + flat if name in pairs else flat
            nothing = torch.zeros(count, 2, 1, dtype=torch.float64, device=self.problem.device)
            found.append(torch.stack([self._moments(pairs.get(p, nothing)) for p in layer.parameters], 1))
        return torch.cat(found, 2)

    def _pair(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """H1 and H1 - H2 from what two halves add to the mean of the block, along a new first axis."""
        one, two = (half * (self.copies / n) for half, n in zip((first, second), self.halves, strict=True))
        return torch.stack([one, one - two])

    def _moments(self, pairs: torch.Tensor) -> torch.Tensor:
        """Moments ``[2, B]`` from H1 and H1 - H2, ``[B, 2, D]``."""
        gram = torch.bmm(pairs, pairs.transpose(1, 2)).double()
        return self._combined(gram[:, 0, 0] - gram[:, 0, 1], gram[:, 1, 1])

    def _combined(self, product: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
        """``sample_sqnorm`` and ``sample_product`` from <H1, H2> and |H1 - H2|^2."""
        one, two = self.halves
        return torch.stack([product + 2 * one * two / self.copies**2 * apart, product])


def _of_samples(outcome: Outcome) -> torch.Tensor:
    assert outcome.apart is not None
    return outcome.apart


def apart_bytes(
    problem: Problem, draw: Draw, layers: Sequence[Layer], readouts: Sequence[ReadOut], copies: int
) -> int:
    """Bytes that reading samples apart needs besides.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        readouts: How it is read.
        copies: Copies in a block.
    """
    item = 8 if any(problem.parameters[p].dtype == torch.float64 for x in layers for p in x.parameters) else 4
    weights, size = sum(layer.numel for layer in layers), problem.batch_size
    if draw.where == "weights":
        each = copies if draw.share == "batch" else 2 * size
        return item * weights * each * len({r.cotangent for r in readouts})
    noisy = [x for i, x in enumerate(layers) if i or x.calls > 1]
    kinds = len({(r.cotangent, r.encodes_input) for r in readouts})
    held = 2 * size * item * kinds * sum(x.numel for x in noisy)
    return held + max(8 * 3 * min(samples_at_once(x, 3), size) * x.numel for x in layers)
