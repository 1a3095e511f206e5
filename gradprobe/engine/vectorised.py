"""The vmap engine: the noise alone is batched, so whatever runs before the noisy layer runs once."""

from __future__ import annotations

import warnings

import torch

from gradprobe.engine.graph import OneCopy, segment
from gradprobe.engine.sites import Forward, Segment


def vectorised(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    """Losses and noisy inputs of some copies, all of them in one vectorised forward.

    Args:
        forward: What to run; weights drawn for each sample are not served.

    Returns:
        Losses ``[n, B]`` or ``[n]``, and one segment for each copy.
    """
    one = OneCopy(forward) if forward.graph is None else forward.graph
    function = one if isinstance(one, OneCopy) else one.run
    with warnings.catch_warnings():
        # torch says that an operation has no batching rule; whether that costs time is measured, not guessed
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        losses, kept = torch.func.vmap(function, randomness="error")(*forward.noise.values())
    if forward.graph is not None:
        forward.problem.count(forward.copies)
    each = [{site: [t[k] for t in found] for site, found in kept.items()} for k in range(forward.copies)]
    return losses, [segment(k, one.seen, mine) for k, mine in enumerate(each)]


def one_by_one(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    """The same by a loop over the copies of a graph."""
    assert forward.graph is not None
    losses, segments = [], []
    for k in range(forward.copies):
        found, kept = forward.graph.run(*(eps[k] for eps in forward.noise.values()))
        losses.append(found)
        segments.append(segment(k, forward.graph.seen, kept))
    forward.problem.count(forward.copies)
    return torch.stack(losses), segments
