"""Keyed noise streams: which random numbers, independent of when, where and in what order they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.spec import canonical_json

NOISE_VERSION = 2
"""Raised whenever the numbers behind a key change; part of a run's identity."""


@dataclass(frozen=True)
class Block:
    """Consecutive copies that share one noise key: copies ``index * copies`` to ``(index + 1) * copies - 1``."""

    index: int
    copies: int


@dataclass(frozen=True)
class Streams:
    """All noise of one seed.

    The key of a stream is (noise version, purpose, root seed, family, where, layer, call, seed, block). It
    holds neither the estimator, so that read-outs of one draw share their noise, nor sigma, nor a position in
    a sequence, so that chunk size, order and resuming leave the noise bitwise the same. The key is hashed
    (BLAKE2b) to the 128 bits of a counter-based Philox generator: among 10^12 keys the chance of any
    collision is about 10^-15.

    Attributes:
        root: Root seed of the run.
        seed: The independent repetition.
        purpose: ``"draw"`` for estimates, ``"smoothed"`` for the noise-averaged reference, ``"planned draw"`` for the
            estimates of a plan.
        drawn_on: ``"device"``: where the model is; ``"cpu"``: on the CPU wherever the model is, for results that
            are to agree between machines.
    """

    root: int
    seed: int
    purpose: str = "draw"
    drawn_on: str = "device"

    def key(self, family: str, where: str, layer: str, call: int, block: int) -> int:
        """Key of one stream, 128 bits.

        Args:
            family: Noise family ("gaussian", ...).
            where: ``"activations"`` or ``"weights"``.
            layer: Layer name.
            call: Call number of the layer in one forward (activations) or parameter number (weights).
            block: Block index.
        """
        parts = [NOISE_VERSION, self.purpose, self.root, family, where, layer, call, self.seed, block]
        digest = hashlib.blake2b(canonical_json(parts).encode(), digest_size=16).digest()
        return int.from_bytes(digest, "little")

    def generator(self, family: str, where: str, layer: str, call: int, block: int) -> np.random.Generator:
        """Generator at the start of the stream with this :meth:`key`, for estimators with noise of their own."""
        return np.random.Generator(np.random.Philox(key=self.key(family, where, layer, call, block)))


def seed_list(given: int | Sequence[int]) -> list[int]:
    """Seeds as a list: as many as asked for, or those given.

    Raises:
        UsageError: They are no whole numbers from 0 on, or one is given twice.
    """
    if isinstance(given, Iterable) and not isinstance(given, str):
        wanted = [whole("each of the seeds", seed, 0) for seed in given]
    else:
        wanted = list(range(whole("seeds", given)))
    if not wanted:
        raise UsageError("no seeds given; give their number, or a list of them.")
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"seeds {wanted} holds a seed twice; each seed is one repetition.")
    return wanted
