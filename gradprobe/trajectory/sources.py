"""Where walkers get their directions from: all of them at once for draws and backprop, one by one for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Family
from gradprobe.engine.tiles import TILE, fill_copies
from gradprobe.estimators.base import Estimator, Labelled
from gradprobe.estimators.bp import BP
from gradprobe.estimators.readout import ReadOut, whole_pairs
from gradprobe.layers.find import find_layers
from gradprobe.problems.landscape import Function
from gradprobe.problems.problem import Problem


class Source(Protocol):
    """Directions of walkers on a function."""

    def directions(
        self, positions: torch.Tensor, losses: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates at the positions of one step.

        Args:
            positions: ``[W, d]``.
            losses: The function there, ``[W]``.
            step: Number of the step, from 0.

        Returns:
            Directions ``[W, d]``, and how many noisy evaluations were not finite ``[W]``.
        """
        ...


class Gradients:
    """Backprop, for all walkers at once.

    Args:
        function: The function.
    """

    def __init__(self, function: Function) -> None:
        self.function = function

    def directions(
        self, positions: torch.Tensor, losses: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients."""
        return self.function.gradient(positions), positions.new_zeros(len(positions))


class Noise:
    """Unit noise of many walkers, one stream for each of them and for each chunk of steps.

    A chunk has as many steps as fit into a tile of noise, whatever the number of walkers, so that a walker's noise
    depends neither on the others nor on the number of steps.

    Args:
        draw: The draw.
        layer: Name of the layer whose noise it is.
        streams: One for each walker.
        copies: Copies in a step.
        dims: Number of variables.
    """

    def __init__(self, draw: Draw, layer: str, streams: Sequence[Streams], copies: int, dims: int) -> None:
        draw.check_block(copies)
        self.draw, self.layer, self.streams = draw, layer, streams
        self.drawn = copies // 2 if draw.antithetic else copies
        self.dims = dims
        self.length = chunk_length(self.drawn, dims)
        self.family: Family = NOISE.get(draw.noise)()
        self._chunk = -1
        self._noise = torch.empty(0)

    def at(self, step: int) -> torch.Tensor:
        """The unit noise of a step ``[walkers, copies, d]``, float64; partners of antithetic copies come last."""
        chunk, within = divmod(step, self.length)
        if chunk != self._chunk:
            self._draw(chunk)
        found = self._noise[:, within].double()
        return torch.cat([found, -found], 1) if self.draw.antithetic else found

    def _draw(self, chunk: int) -> None:
        numbers = self.length * self.drawn
        flat = torch.empty(len(self.streams), numbers, self.dims, dtype=torch.float32)
        for row, streams in zip(flat, self.streams, strict=True):
            key = streams.key(self.draw.noise, self.draw.where, self.layer, 0, chunk)
            fill_copies(self.family, key, range(numbers), row)
        self._chunk, self._noise = chunk, flat.view(len(flat), self.length, self.drawn, self.dims)


def chunk_length(drawn: int, dims: int) -> int:
    """Steps whose noise shares a key: those that fit into a tile, one at least."""
    return max(TILE // (drawn * dims), 1)


class Draws:
    """An estimator that is a read-out of a draw, for all walkers at once.

    The input of the function's one layer is 1, so the noise of its output is the noise of its weights and nothing
    is left of pulling back (the sign of the input is 1, too): ``mean over copies of (f(x + sigma eps) - c) score``.

    Args:
        function: The function.
        layer: Its layer.
        draw: The draw.
        readout: The read-out.
        streams: Noise of the walkers that have their own; see ``unit``.
        copies: Copies in a step.
        unit: Which stream serves each walker, ``[W]``.
    """

    def __init__(
        self,
        function: Function,
        layer: Layer,
        draw: Draw,
        readout: ReadOut,
        streams: Sequence[Streams],
        copies: int,
        unit: torch.Tensor,
    ) -> None:
        readout.check_block(copies, draw.antithetic)
        self.function, self.draw, self.readout, self.unit = function, draw, readout, unit
        self.noise = Noise(draw, layer.name, streams, copies, function.dims)
        self.sigma, self.scale = draw.sigma_of(layer.name), readout.scale(draw, layer.name)

    def directions(
        self, positions: torch.Tensor, losses: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One block of copies for each walker."""
        noise = self.noise.at(step)[self.unit]
        with torch.no_grad():
            noisy = self.function.values(positions[:, None] + self.sigma * noise).T
        return self.read(noise, noisy, losses)

    def read(
        self, noise: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Directions ``[W, d]`` from unit noise ``[W, m, d]``, its losses ``[m, W]`` and those without ``[W]``."""
        kept = whole_pairs(noisy.isfinite(), self.draw.antithetic)
        centred = self.readout.centred(noisy, clean, kept, self.draw.antithetic) * (self.scale / len(noisy))
        score = self.readout.score(self.noise.family, noise)
        return torch.einsum("mw,wmd->wd", centred, score), (~kept).sum(0).double()


class OneByOne:
    """Any other estimator: its own ``directions``, one walker after another.

    Args:
        function: The function.
        labelled: The estimator.
        streams: Noise of each walker.
        copies: Copies in a step.
    """

    def __init__(
        self, function: Function, labelled: Labelled, streams: Sequence[Streams], copies: int
    ) -> None:
        self.problem, self.layers = function_layers(function)
        (self.name,) = self.problem.parameters
        self.estimator, self.streams, self.copies = labelled.estimator, streams, copies

    def directions(
        self, positions: torch.Tensor, losses: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A block of copies for each walker that is still somewhere."""
        found = torch.full_like(positions, torch.nan)
        for w, streams in enumerate(self.streams):
            if bool(losses[w].isfinite()):
                there = self.problem.at({self.name: positions[w, :, None]})
                block = Block(step, self.copies)
                given = self.estimator.directions(there, self.layers, block, streams)
                found[w] = given[self.name].reshape(-1).to(found)
        return found, positions.new_zeros(len(positions))


def function_layers(function: Function) -> tuple[Problem, list[Layer]]:
    """The function as a problem, and its layers (there is one)."""
    problem = function.problem()
    return problem, find_layers(problem).select(None)


def make_source(
    function: Function, labelled: Labelled, streams: Sequence[Streams], copies: int, unit: torch.Tensor
) -> Source:
    """The source of an estimator's directions.

    Args:
        function: The function.
        labelled: The estimator.
        streams: Independent streams of noise.
        copies: Copies in a step.
        unit: Which stream serves each walker, ``[W]``.

    Raises:
        UsageError: The estimator does not serve a function.
    """
    estimator = labelled.estimator
    if type(estimator) is BP:
        return Gradients(function)
    problem, layers = function_layers(function)
    with problem.frozen():
        refused = estimator.refusals(problem, layers)
    if refused:
        raise UsageError(f"{labelled.label} does not serve a function: {next(iter(refused.values()))}.")
    assigned = estimator.assignment(layers)
    if assigned is None or type(estimator).directions is not Estimator.directions:
        return OneByOne(function, labelled, [streams[int(u)] for u in unit], copies)
    draw, readout = assigned[layers[0].name]
    return Draws(function, layers[0], draw, readout, streams, copies, unit)
