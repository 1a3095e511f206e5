"""Descents of one estimator from all starts, over all seeds and rates, in groups that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gradprobe.core.streams import Streams
from gradprobe.engine.tiles import TILE
from gradprobe.estimators.base import Labelled
from gradprobe.trajectory.request import Request
from gradprobe.trajectory.sources import make_source
from gradprobe.trajectory.walk import Rules, Walked, walk

NUMBERS = 2**22
"""Noisy coordinates that walkers of a group have in one step at most: 32 MiB, a few times over."""

STREAMED = 2**26
"""Numbers of noise that a group holds at most: 256 MiB."""


def descents(
    request: Request,
    labelled: Labelled,
    rates: Sequence[float],
    rules: Rules,
    purpose: str = "descent",
    tick: Callable[[float], None] = lambda share: None,
) -> Walked:
    """Descend with every rate, from every start, with every seed.

    The noise of a walker has keys of its own, made of the purpose, the coordinates of its start and its seed: it is
    the same at every rate, and depends on neither the other starts nor the other seeds.

    Args:
        request: Function, starts, seeds, copies.
        labelled: The estimator; one without noise walks once for all seeds.
        rates: Learning rates.
        rules: How walkers move.
        purpose: What the noise is for.
        tick: Told the share that is done, at every step.

    Returns:
        Walkers in the order (rate, start, seed).
    """
    seeds = request.seeds if labelled.estimator.stochastic else request.seeds[:1]
    units = [(start, seed) for start in range(len(request.starts)) for seed in seeds]
    each = request.copies * request.function.dims
    most = max(min(NUMBERS // (each * len(rates)), STREAMED // max(each, TILE)), 1)
    parts = []
    for first in range(0, len(units), most):
        group = units[first : first + most]
        streams = [
            Streams(request.root_seed, seed, f"{purpose} from {request.starts[start].tolist()}", "cpu")
            for start, seed in group
        ]
        unit = torch.arange(len(group)).repeat(len(rates))
        starts = request.starts[[start for start, _ in group]].repeat(len(rates), 1)
        rate = torch.tensor(list(rates), dtype=torch.float64).repeat_interleave(len(group))
        source = make_source(request.function, labelled, streams, request.copies, unit)
        share = len(group) / len(units)

        def step(done: float, before: float = first / len(units), share: float = share) -> None:
            tick(before + done * share)

        parts.append(_by_rate(walk(request.function, source, starts, rate, rules, step), len(rates)))
    return _flat(Walked.joined(parts))


def _by_rate(walked: Walked, rates: int) -> Walked:
    """Walkers first, rates second, so that groups can be joined."""

    def turn(t: torch.Tensor) -> torch.Tensor:
        return t.view(rates, -1, *t.shape[1:]).transpose(0, 1)

    values = {k: turn(v) for k, v in walked.values.items()}
    return Walked(values, turn(walked.diverged), turn(walked.lost))


def _flat(walked: Walked) -> Walked:
    def turn(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, 1).flatten(0, 1)

    values = {k: turn(v) for k, v in walked.values.items()}
    return Walked(values, turn(walked.diverged), turn(walked.lost))
