"""An audited function as an estimator: one copy is one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from gradprobe.audits.bench import Bench, Called
from gradprobe.core.streams import Block, Streams
from gradprobe.estimators.base import Directions, Estimator, Layer, Problem


class Audited(Estimator):
    """Calls a function on its bench, under a seed of its own for each copy, and keeps what else was seen.

    Args:
        bench: Where it is called.
        stochastic: False for a function that gives the same under every seed; it is then called once.
        directions_too: Further directions to hold each call against, by name, each by parameter.
    """

    whole: ClassVar[bool] = True

    def __init__(
        self, bench: Bench, stochastic: bool, directions_too: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        own: dict[str, object] = {"bench": bench, "stochastic": stochastic, "too": directions_too}
        for name, value in (own | {"calls": [], "lost": 0, "products": {}}).items():
            object.__setattr__(self, name, value)

    bench: Bench
    too: Mapping[str, Mapping[str, torch.Tensor]]
    calls: list[Called]
    lost: int
    products: dict[int, list[dict[str, dict[str, float]]]]
    """Seed -> for each call, name of a further direction -> parameter -> product with it."""

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """The mean of the block's calls; 0 where nothing of the right shape was returned."""
        sums: dict[str, torch.Tensor] = {}
        values = problem.parameters
        names = [name for layer in layers for name in layer.parameters]
        for copy in range(block.index * block.copies, (block.index + 1) * block.copies):
            called = self.bench.call(key_of(streams, copy))
            found = {n: called.directions.get(n, torch.zeros_like(values[n])).double() for n in names}
            self._note(called, found, streams.seed)
            for name, direction in found.items():
                sums[name] = sums[name] + direction if name in sums else direction
        return {name: total / block.copies for name, total in sums.items()}

    def _note(self, called: Called, found: Directions, seed: int) -> None:
        """Keep numbers of a call; its directions would need memory."""
        finite = all(bool(d.isfinite().all()) for d in found.values())
        object.__setattr__(self, "lost", self.lost + (not finite))
        called.returned.directions.clear()
        self.calls.append(called)
        products = {
            name: {p: float((found[p] * g[p]).sum()) for p in g if p in found} for name, g in self.too.items()
        }
        self.products.setdefault(seed, []).append(products)


def key_of(streams: Streams, copy: int) -> int:
    """The key that a call is made under."""
    return streams.key("audit", "call", "", 0, copy)
