"""Weights with noise, copy by copy or all at once; antithetic partners use one noise with both signs."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.engine.parts import Part
from gradprobe.engine.sites import Forward


def drawn_once(draw: Draw, parts: list[Part]) -> tuple[int, ...]:
    """For each part how many noises stand for as many pairs; nothing if every copy has its own.

    Weight noise for the whole batch is the largest there is, and the losses of a pair are subtracted before they meet
    it: half of the noise is neither written nor read.
    """
    folds = draw.antithetic and draw.where == "weights" and draw.share == "batch"
    return tuple(len(part.drawn) for part in parts) if folds else ()


def signed_rows(forward: Forward) -> Iterator[tuple[int, int]]:
    """For each copy its row of the noise, and the sign with which it uses it."""
    if not forward.halves:
        yield from ((k, 1) for k in range(forward.copies))
    start = 0
    for drawn in forward.halves:
        for sign in (1, -1):
            yield from ((start + k, sign) for k in range(drawn))
        start += drawn


def each_noise(forward: Forward) -> Iterator[list[torch.Tensor]]:
    """The noise of each copy, a tensor for each site."""
    for row, sign in signed_rows(forward):
        yield [eps[row] if sign > 0 else -eps[row] for eps in forward.noise.values()]


def every_noise(forward: Forward) -> list[torch.Tensor]:
    """The noise of all copies, ``[n, *shape]`` for each site."""
    if not forward.halves:
        return list(forward.noise.values())
    each = [eps.split(list(forward.halves)) for eps in forward.noise.values()]
    return [torch.cat([signed for half in halves for signed in (half, -half)]) for halves in each]


def moving(forward: Forward) -> tuple[dict[str, torch.Tensor], Iterator[None]]:
    """Tensors for the layers' weights, and steps of which each writes the values of one copy into them."""
    values = forward.problem.parameters
    sites = list(_sites(forward))
    place = {name: torch.empty_like(values[name]) for _, _, name in sites}

    def steps() -> Iterator[None]:
        for row, sign in signed_rows(forward):
            for layer, number, name in sites:
                alpha = sign * forward.draw.sigma_of(layer.name)
                eps = forward.noise[layer.name, number][row]
                torch.add(values[name], eps, alpha=alpha, out=place[name])
            yield

    return place, steps()


def stacked(forward: Forward) -> dict[str, torch.Tensor]:
    """The layers' weights of all copies ``[n, *shape]``, in their own precision."""
    values, found = forward.problem.parameters, {}
    for layer, number, name in _sites(forward):
        eps, sigma = forward.noise[layer.name, number], forward.draw.sigma_of(layer.name)
        new = eps.new_empty(forward.copies, *eps.shape[1:], dtype=values[name].dtype)
        begin = 0
        for half in eps.split(list(forward.halves)) if forward.halves else [eps]:
            for sign in (1, -1) if forward.halves else (1,):
                torch.add(values[name], half, alpha=sign * sigma, out=new[begin : begin + len(half)])
                begin += len(half)
        found[name] = new
    return found


def moved_losses(forward: Forward, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Losses of one copy with these weights; of those that each sample has ``[B, *shape]``, all samples at once.

    Args:
        forward: What runs, under ``vmap`` for all of its copies together.
        values: The layers' weights.

    Returns:
        Losses ``[B]``, or ``[]``.
    """
    problem, layout, copies = forward.problem, forward.layout, forward.copies
    if forward.draw.share == "batch":
        return problem.evaluate(values, copies=copies, layout=layout)
    size = problem.batch_size

    def alone(row: torch.Tensor, own: dict[str, torch.Tensor]) -> torch.Tensor:
        return problem.evaluate(own, sample=row, copies=copies * size, layout=layout)[0]

    rows = torch.arange(size, device=problem.device)
    losses: torch.Tensor = torch.func.vmap(alone, randomness="error")(rows, values)
    return losses


def _sites(forward: Forward) -> Iterator[tuple[Layer, int, str]]:
    """Every parameter of the noisy layers: its layer, its number there, its name."""
    for layer in forward.layers:
        for number, name in enumerate(layer.parameters):
            yield layer, number, name
