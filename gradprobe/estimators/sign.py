"""The sign of a finished update: each weight moves by the same amount, and only the direction is the method's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.streams import Streams
from gradprobe.estimators import register
from gradprobe.estimators.base import Block, Directions, Draw, Estimator, Layer, Problem, Read, make


@register(
    "sign",
    summary="sign of another method's finished update, as in sign(fa) or sign(lr, copies=100), each copy one update",
    order=80,
    color="#888888",
    target="surrogate",
    formula="sign(mean of n copies of the method)",
    source="ALR, arXiv 2403.12320, Table 1; signSGD, arXiv 1802.04434",
)
@dataclass(frozen=True)
class Sign(Estimator):
    """The sign, entry by entry, of what another method gives: ``sign(fa)``, ``sign(lr(sigma=0.1), copies=100)``.

    ALR's Table 1 has it for BP, HSIC and FA, beside ALR itself, which takes signs of noise and input before anything
    is summed. Where the method has noise, one copy is the sign of one finished estimate of ``copies`` copies, all of
    one noise block, so that estimates and seeds are independent; the noise has keys of its own (purpose "sign ...").
    The mean of m such copies is a mean of signs: m finished updates, not the sign of a better one.

    The mean is a field of its own, every entry between -1 and 1: with a method without noise its sign; with one that
    has noise the chance of a positive entry less that of a negative one, which flattens as ``copies`` grow. Without
    noise in the method it is deterministic, the same for every copy and seed, a flat line in copies.

    Attributes:
        of: The method, with its options; backprop by default. Options of a run, such as sigma, reach it.
        copies: Copies in one finished estimate; 1 by default, and always for a method without noise.
    """

    whole: ClassVar[bool] = True
    argument: ClassVar[str] = "of"

    of: str = "bp"
    copies: int = 1

    def __post_init__(self) -> None:
        made = make(self.of)
        object.__setattr__(self, "of", made.spec or made.label)
        whole("copies", self.copies)
        if self._member.own_layers:
            raise UsageError(
                f"{made.label} estimates no weights' gradient, so sign has nothing to step; leave it out."
            )
        if self.copies > 1 and not self._member.stochastic:
            raise UsageError(
                f"{made.label} has no noise, so sign has no use for copies of it; leave copies= out."
            )
        for trait in ("stochastic", "uses_backward"):  # those of the method, in place of the class's
            object.__setattr__(self, trait, getattr(self._member, trait))

    @functools.cached_property
    def _member(self) -> Estimator:
        return make(self.of).estimator

    @property
    def brief(self) -> bool:
        """As the method."""
        return self._member.brief

    @property
    def injection(self) -> str | None:
        """As the method."""
        return self._member.injection

    def read(
        self,
        problem: Problem,
        layers: Sequence[Layer],
        block: Block,
        streams: Streams,
        memory: int | None = None,
        sharers: int = 1,
        storage: str = "float32",
    ) -> Read:
        """As for every estimator; an estimate that lost a share of its copies counts as that share lost."""
        self.check_block(layers, block.copies)
        own = replace(streams, purpose=f"sign {streams.purpose}")
        count = block.copies if self.stochastic else 1
        sums: Directions = {}
        lost, taken = 0.0, np.full(2, np.nan)
        with problem.frozen():
            for k in range(count):
                each = Block(block.index * count + k, self.copies)
                read = self._member.read(problem, layers, each, own, memory, sharers, storage)
                lost, taken = lost + read.nonfinite / self.copies, np.fmax(taken, read.bytes)
                for name, found in read.directions[0].items():
                    signs = torch.sign(found) / count
                    sums[name] = sums[name] + signs if name in sums else signs
        return Read([sums], lost, bytes=taken)

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Those of the method."""
        return self._member.refusals(problem, layers)

    def draws(self, layers: Sequence[Layer]) -> list[tuple[Draw, list[Layer], int]]:
        """Those of the method, as often as a finished estimate has copies."""
        return [(draw, unit, often * self.copies) for draw, unit, often in self._member.draws(layers)]

    def forwards(self, layers: Sequence[Layer], copies: int) -> int:
        """Those of the method for the copies of all finished estimates."""
        return self._member.forwards(layers, copies * self.copies)

    def check_block(self, layers: Sequence[Layer], copies: int) -> None:
        """Refuse a finished estimate whose copies the method cannot use.

        Raises:
            UsageError: It cannot.
        """
        try:
            self._member.check_block(layers, self.copies)
        except UsageError as error:
            raise UsageError(f"a finished estimate of sign has copies={self.copies}: {error}") from None
