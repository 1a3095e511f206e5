"""The vmap engine: the noise alone is batched, so whatever runs before the noisy layer runs once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept, map_tensors, tensors
from gradprobe.core.layer import paths
from gradprobe.engine.sites import Forward, Segment, Site, add_noise, check_calls, noise_at, shifted


def vectorised(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    """Losses and noisy inputs of some copies, all of them in one vectorised forward.

    Args:
        forward: What to run; weights drawn for each sample are not served.

    Returns:
        Losses ``[n, B]`` or ``[n]``, and one segment for each copy.
    """
    problem, draw, layers = forward.problem, forward.draw, forward.layers
    sites, first, copies = list(forward.noise), forward.first, forward.copies
    seen: dict[Site, tuple[str, Any, Any]] = {}

    def one(*eps: torch.Tensor) -> tuple[torch.Tensor, dict[Site, list[torch.Tensor]]]:
        current = dict(zip(sites, eps, strict=True))
        kept: dict[Site, list[torch.Tensor]] = {}

        def edit(call: Call, output: Any) -> Any:
            forward.noise_begins()
            site = (call.layer, call.number)
            if site not in first:
                seen[site] = (call.path, call.args, call.kwargs)
                kept[site] = tensors((call.args, call.kwargs))
            return add_noise(output, draw, call.layer, noise_at(current, call))

        def evaluate(values: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
            with forward.replayed():
                return problem.evaluate(values, copies=copies, layout=forward.layout)

        if draw.where == "weights":
            values = shifted(problem, draw, layers, current)
            with forward.weight_calls() as calls:
                calls.restart()
                return problem.total(evaluate(values)), {}
        captured = intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first)
        with captured as calls:
            calls.restart()
            losses = evaluate()
            check_calls(calls.counts, layers)
        return losses, kept

    with warnings.catch_warnings():
        # torch says that an operation has no batching rule; whether that costs time is measured, not guessed
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        losses, kept = torch.func.vmap(one, randomness="error")(*forward.noise.values())
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
