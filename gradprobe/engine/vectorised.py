"""The vmap engine: the noise alone is batched, so whatever runs before the noisy layer runs once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept, map_tensors, tensors
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.engine.draw import Draw
from gradprobe.engine.sites import Segment, Site, add_noise, check_calls, noise_at, paths, shifted


def vectorised(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    noise: dict[Site, torch.Tensor],
    copies: int,
    first: set[Site],
) -> tuple[torch.Tensor, list[Segment]]:
    """Losses and noisy inputs of a block, all copies in one vectorised forward.

    Args:
        problem: The problem.
        draw: The draw; weights drawn for each sample are not served.
        layers: The layers that are noisy together.
        noise: Unit noise at each site, ``[m, *shape]``.
        copies: m.
        first: Calls whose input is clean.

    Returns:
        Losses ``[m, B]`` or ``[m]``, and one segment for each copy.
    """
    sites = list(noise)
    seen: dict[Site, tuple[str, Any, Any]] = {}

    def one(*eps: torch.Tensor) -> tuple[torch.Tensor, dict[Site, list[torch.Tensor]]]:
        current = dict(zip(sites, eps, strict=True))
        kept: dict[Site, list[torch.Tensor]] = {}

        def edit(call: Call, output: Any) -> Any:
            site = (call.layer, call.number)
            if site not in first:
                seen[site] = (call.path, call.args, call.kwargs)
                kept[site] = tensors((call.args, call.kwargs))
            return add_noise(output, draw, call.layer, noise_at(current, call))

        if draw.where == "weights":
            return problem.total(problem.evaluate(shifted(problem, draw, layers, current), copies=copies)), {}
        captured = intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first)
        with captured as calls:
            calls.restart()
            losses = problem.evaluate(copies=copies)
            check_calls(calls.counts, layers)
        return losses, kept

    with warnings.catch_warnings():
        # torch says that an operation has no batching rule; whether that costs time is measured, not guessed
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        losses, kept = torch.func.vmap(one, randomness="error")(*noise.values())
    return losses, [_segment(k, seen, kept) for k in range(copies)]


def _segment(
    k: int, seen: Mapping[Site, tuple[str, Any, Any]], kept: Mapping[Site, list[torch.Tensor]]
) -> Segment:
    inputs = {}
    for site, (path, args, kwargs) in seen.items():
        values = iter(kept[site])
        args, kwargs = map_tensors(lambda t, v=values: next(v)[k], (args, kwargs))  # type: ignore[misc]
        inputs[site] = (path, args, kwargs)
    return Segment(slice(k, k + 1), inputs)
