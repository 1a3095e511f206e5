"""The vmap engine: the noise alone is batched, so whatever runs before the noisy layer runs once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from gradprobe.engine.features_first import features_first
from gradprobe.engine.graph import OneCopy, segment
from gradprobe.engine.moving import each_noise, every_noise, moved_losses, stacked
from gradprobe.engine.sites import Forward, Segment


def vectorised(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    """Losses and noisy inputs of some copies, all of them in one vectorised forward.

    Args:
        forward: What to run.

    Returns:
        Losses ``[n, B]`` or ``[n]``, and one segment for each copy.
    """
    if forward.graph is None and forward.draw.where == "weights" and not forward.draw.derived:
        return _moved(forward), []
    one = OneCopy(forward) if forward.graph is None else forward.graph
    function = one if isinstance(one, OneCopy) else one.run
    with _quiet():
        losses, kept = torch.func.vmap(function, randomness="error")(*every_noise(forward))
    if forward.graph is not None:
        forward.problem.count(forward.copies)
    each = [{site: [t[k] for t in found] for site, found in kept.items()} for k in range(forward.copies)]
    return losses, [segment(k, one.seen, mine, forward.storing) for k, mine in enumerate(each)]


def _moved(forward: Forward) -> torch.Tensor:
    """Losses of copies whose weights are made for all of them together."""
    one = functools.partial(moved_losses, forward)
    with _quiet(), features_first(forward.problem) if forward.draw.share == "batch" else nullcontext():
        return torch.func.vmap(one, randomness="error")(stacked(forward))


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch says that an operation has no batching rule; whether that costs time is measured, not guessed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        yield


def one_by_one(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    """The same by a loop over the copies of a graph."""
    assert forward.graph is not None
    losses, segments = [], []
    for k, eps in enumerate(each_noise(forward)):
        found, kept = forward.graph.run(*eps)
        losses.append(found)
        segments.append(segment(k, forward.graph.seen, kept, forward.storing))
    forward.problem.count(forward.copies)
    return torch.stack(losses), segments
