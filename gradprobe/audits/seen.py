"""What few calls beside the measured ones show: whether seeds count, and what is kept between calls."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradprobe.audits.bench import Bench, Called
from gradprobe.audits.generators import random_operations
from gradprobe.core.streams import Streams

ROUNDING = 1e-4
"""Relative difference of two results from which on they are not the same: kernels that add in another order differ by
1e-7, which code that divides by sigma = 1e-3 turns into this."""


@dataclass
class Seen:
    """What the trial calls show.

    Attributes:
        first: The first call.
        repeats: Whether the second call, under the same seed, gave the same.
        differs: Whether a call under another seed gave something else.
        adds: Whether what was in ``.grad`` before the call changes what it gives.
        reseeds: Global generators that it seeds itself: they end in the same state whatever they begin with.
        draws: Random operations of torch that run although every seed gives the same.
        lasting: Whether the same seed still gave the same after all other calls.
    """

    first: Called
    repeats: bool
    differs: bool
    adds: bool
    reseeds: tuple[str, ...]
    draws: tuple[str, ...] = ()
    lasting: bool = True

    @property
    def deterministic(self) -> bool:
        """Whether it gives the same under every seed."""
        return self.repeats and not self.differs

    @property
    def draws_anything(self) -> bool:
        """Whether random numbers were seen to be drawn."""
        return bool(self.draws or self.first.drew)


def look(bench: Bench, root_seed: int) -> Seen:
    """Four calls, and a fifth of what seems deterministic."""
    keys = trial_keys(root_seed)
    first = bench.call(keys[0], look=True)
    again, other = bench.call(keys[0]), bench.call(keys[1])
    ones = {n: torch.ones_like(p) for n, p in bench.module.named_parameters()}
    added = bench.call(keys[0], grads=ones)
    repeats, differs = same(first, again), not same(first, other)
    used = [name for name in first.drew if name in other.drew]
    reseeds = tuple(name for name in used if first.after[name] == other.after[name])
    draws = random_operations(lambda: bench.call(keys[0])) if repeats and not differs else ()
    return Seen(first, repeats, differs, repeats and not same(first, added), reseeds, draws)


def look_again(bench: Bench, root_seed: int, seen: Seen) -> None:
    """Note whether the first seed still gives what it gave at first."""
    seen.lasting = not seen.repeats or same(seen.first, bench.call(trial_keys(root_seed)[0]))


def trial_keys(root_seed: int) -> list[int]:
    """Keys of the trial calls, apart from those of measured ones."""
    streams = Streams(root_seed, 0, "audit trial")
    return [streams.key("audit", "call", "", 0, i) for i in range(2)]


def same(one: Called, other: Called) -> bool:
    """Whether two calls gave the same up to rounding."""
    a, b = one.directions, other.directions
    if a.keys() != b.keys():
        return False
    square = sum(float(d.double().nan_to_num().square().sum()) for d in a.values())
    apart = sum(
        float((d.double().nan_to_num() - b[n].double().nan_to_num()).square().sum()) for n, d in a.items()
    )
    missing = any(not torch.equal(d.isfinite(), b[n].isfinite()) for n, d in a.items())
    return not missing and apart <= ROUNDING**2 * square
