"""Where walkers get their directions from: all of them at once for draws and backprop, one by one for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.forward_mode import forward_mode
from gradprobe.engine.noise import Family, Plain, make_family
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
            Directions ``[W, d]``, and how many noisy evaluations counted as 0 because they, or an antithetic partner,
            were not finite ``[W]``; NaN if that is unknown.
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
        return where_finite(self.function.gradient, positions), positions.new_zeros(len(positions))


@dataclass(frozen=True)
class Reading:
    """What is made of noise on the one layer of a function.

    Attributes:
        layer: Its name.
        draw: The draw.
        readout: The read-out.
    """

    layer: str
    draw: Draw
    readout: ReadOut

    @property
    def family(self) -> Family:
        """The noise family."""
        return make_family(self.draw.noise)

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise."""
        return self.draw.sigma_of(self.layer)

    @property
    def scale(self) -> float:
        """What makes the read-out's score that of the noise."""
        return self.readout.scale(self.draw, self.layer)


class Noise:
    """Unit noise of many walkers, one stream for each of them and for each chunk of steps.

    A chunk has as many steps as fit into a tile of noise, whatever the number of walkers, so that a walker's noise
    depends neither on the others nor on the number of steps.

    Args:
        reading: Whose noise it is.
        streams: One for each walker.
        copies: Copies in a step.
        dims: Number of variables.
    """

    def __init__(self, reading: Reading, streams: Sequence[Streams], copies: int, dims: int) -> None:
        self.draw, self.layer, self.streams = reading.draw, reading.layer, streams
        self.draw.check_block(copies)
        self.drawn = copies // 2 if self.draw.antithetic else copies
        self.dims = dims
        self.length = chunk_length(self.drawn, dims)
        assert isinstance(reading.family, Plain)
        self.family = reading.family
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
        reading: Its draw and read-out.
        streams: Noise of the walkers that have their own; see ``unit``.
        copies: Copies in a step.
        unit: Which stream serves each walker, ``[W]``.
    """

    def __init__(
        self,
        function: Function,
        reading: Reading,
        streams: Sequence[Streams],
        copies: int,
        unit: torch.Tensor,
    ) -> None:
        reading.readout.check_block(copies, reading.draw.antithetic)
        self.function, self.reading, self.unit = function, reading, unit
        self.noise = Noise(reading, streams, copies, function.dims)

    def directions(
        self, positions: torch.Tensor, losses: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One block of copies for each walker."""
        noise = self.noise.at(step)[self.unit]
        with torch.no_grad():
            if self.reading.draw.derived:
                noisy = slopes(self.function, positions, noise).T
            else:
                noisy = where_finite(self.function.values, positions[:, None] + self.reading.sigma * noise).T
        return self.read(noise, noisy, losses)

    def read(
        self, noise: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Directions ``[W, d]`` from unit noise ``[W, m, d]``, its losses ``[m, W]`` and those without ``[W]``.

        Of a draw that measures derivatives, they take the place of the losses.
        """
        paired, readout = self.reading.draw.antithetic, self.reading.readout
        kept = whole_pairs(noisy.isfinite(), paired)
        centred = readout.centred(noisy, clean, kept, paired) * (self.reading.scale / len(noisy))
        score = readout.score(self.reading.family, noise)
        return torch.einsum("mw,wmd->wd", centred, score), (~kept).sum(0).double()


def slopes(function: Function, positions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Derivatives of a function along directions, by forward mode; NaN at points that are not finite.

    Args:
        function: The function.
        positions: Points ``[W, d]``.
        noise: Directions at each ``[W, m, d]``.

    Returns:
        ``[W, m]``.
    """
    finite = positions.isfinite().all(1)
    found = positions.new_full(noise.shape[:2], torch.nan)
    points = positions[finite][:, None].expand(-1, noise.shape[1], -1).contiguous()
    if len(points):
        with forward_mode():
            found[finite] = torch.func.jvp(function.values, (points,), (noise[finite].to(points),))[1]
    return found


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
        return found, positions.new_full((len(positions),), torch.nan)


def where_finite(ask: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor) -> torch.Tensor:
    """What a function says at points ``[..., d]``; NaN at those that are not finite, where it is not asked."""
    finite = points.isfinite().all(-1)
    if bool(finite.all()):
        return ask(points)
    some = ask(points[finite])
    found = points.new_full((*finite.shape, *some.shape[1:]), torch.nan)
    found[finite] = some
    return found


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
    if type(labelled.estimator) is BP:
        check_gradients(function)
        return Gradients(function)
    read = reading_of(function, labelled)
    if read is None or not isinstance(read.family, Plain):
        return OneByOne(function, labelled, [streams[int(u)] for u in unit], copies)
    if read.draw.derived:
        check_gradients(function, labelled.label)
    return Draws(function, read, streams, copies, unit)


def check_gradients(function: Function, method: str = "bp") -> None:
    """Refuse a method of derivatives where they do not see the function.

    Raises:
        UsageError: Torch's gradients are not the function's.
    """
    if not function.differentiable:
        raise UsageError(
            f"gradients do not pass through {function.name}: use torch operations in it (no math, numpy, .item() or "
            f"detach()), or leave {method} out."
        )


def reading_of(function: Function, labelled: Labelled) -> Reading | None:
    """The draw and read-out of an estimator on a function; None if its directions are its own.

    Raises:
        UsageError: The estimator does not serve a function.
    """
    problem, layers = function_layers(function)
    refused = labelled.estimator.refusals(problem, layers)
    if refused:
        raise UsageError(f"{labelled.label} does not serve a function: {next(iter(refused.values()))}.")
    assigned = labelled.estimator.assignment(layers)
    if assigned is None or type(labelled.estimator).directions is not Estimator.directions:
        return None
    draw, readout = assigned[layers[0].name]
    draw.check_sigma([layer.name for layer in layers])
    return Reading(layers[0].name, draw, readout)
