"""What all units of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradprobe.core.layer import Layer
from gradprobe.core.streams import Streams
from gradprobe.engine.draw import Draw

PATHWISE_COPIES = 64
"""Copies behind a pathwise reference, unless the user says how many."""


@dataclass(frozen=True)
class Settings:
    """What all units of a run share.

    Attributes:
        block: Copies in a block.
        copies: Copies in all.
        root_seed: Root of all noise keys.
        references: Names of the references, ``"bp"`` first.
        reference_copies: Copies behind a smoothed reference; None for the usual number.
        scored: Draws and layers (``UnitKey.group``) whose smoothed reference comes from scores.
        engine: ``"auto"``, or an engine as text.
        engines: The engine of each unit, by :func:`engine_key`; it takes the place of ``"auto"``.
        shares: The share of a forward that a copy of each unit needs, by :func:`engine_key`; 1 where it is not there.
        unfollowed: Why no shares are known; "" if they are.
        memory: Bytes that were given; None for half of what is free.
        sharers: Processes that share the memory; each computes one unit at a time.
        drawn_on: Where noise is drawn: ``"device"`` or ``"cpu"``.
        per_sample: Whether moments of samples are stored.
        storage: How intermediates of sign-encoded read-outs are kept.
    """

    block: int
    copies: int
    root_seed: int = 0
    references: tuple[str, ...] = ("bp",)
    reference_copies: int | None = None
    scored: frozenset[str] = frozenset()
    engine: str = "auto"
    engines: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    unfollowed: str = ""
    memory: int | None = None
    sharers: int = 1
    drawn_on: str = "device"
    per_sample: bool = False
    storage: str = "float32"

    @property
    def blocks(self) -> int:
        """Blocks of a unit with noise."""
        return self.copies // self.block

    def streams(self, seed: int, purpose: str = "draw") -> Streams:
        """The noise of a seed."""
        return Streams(self.root_seed, seed, purpose, self.drawn_on)

    def copies_behind(self, group: str) -> int:
        """Copies behind the smoothed reference of a draw and layer.

        A pathwise gradient is so much less noisy than a score that a few copies do; from scores the reference is as
        noisy as the estimates, and has as many copies.
        """
        usual = self.copies if group in self.scored else PATHWISE_COPIES
        return usual if self.reference_copies is None else self.reference_copies

    def copies_of(self, fixed: bool) -> int:
        """Copies that a unit needs: one block of an estimator without noise, else all."""
        return self.block if fixed else self.copies


def engine_key(draw: Draw, layers: Sequence[Layer]) -> str:
    """What an engine is chosen for: kind of draw, and the layers that are noisy together."""
    kind = f"{draw.where} {draw.injection} {draw.share}" + " derivative" * draw.derived
    return f"{kind} | {', '.join(layer.name for layer in layers)}"
