"""Noise that is drawn copy by copy, just before it is used: it is still in the cache then."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Family
from gradprobe.engine.parts import Part
from gradprobe.engine.sites import Site, dtype_of, site_shapes
from gradprobe.engine.tiles import TILE, fill_sequence, first_number, laid_out, unit_noise


class Drawing:
    """Unit noise of some copies, the same numbers as all at once.

    Attributes:
        noise: Site -> ``[n, *shape]``; the noise of a copy is there after :meth:`draw`.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        parts: Which copies.
        streams: Noise of the seed.
        layout: Memory layout of images: empty for contiguous noise.
    """

    def __init__(
        self,
        problem: Runnable,
        draw: Draw,
        layers: Sequence[Layer],
        parts: Sequence[Part],
        streams: Streams,
        layout: str,
    ) -> None:
        self.family: Family = NOISE.get(draw.noise)()
        self.copies: list[tuple[int, int, int | None]] = []
        for part in parts:
            first = len(self.copies)
            self.copies += [(part.block, j, None) for j in part.drawn]
            if part.paired:
                self.copies += [(part.block, j, first + i) for i, j in enumerate(part.drawn)]
        self.noise: dict[Site, torch.Tensor] = {}
        self._flat: dict[Site, torch.Tensor] = {}
        self._keys: dict[tuple[Site, int], int] = {}
        for layer in layers:
            for number, shape in enumerate(site_shapes(problem, draw, layer)):
                site = (layer.name, number)
                self._empty(site, shape, layout, dtype_of(problem, layer))
                for part in parts:
                    key = streams.key(draw.noise, draw.where, layer.name, number, part.block)
                    self._keys[site, part.block] = key

    def _empty(self, site: Site, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
        n = len(self.copies)
        if dtype is torch.float32 and math.prod(shape) > TILE and (layout or len(shape) != 4):
            self._flat[site] = torch.empty(n, math.prod(shape), dtype=torch.float32, device="cpu")
            self.noise[site] = laid_out(self._flat[site], n, shape)
        else:
            self.noise[site] = torch.empty(n, *shape, dtype=dtype, device="cpu")

    def draw(self, k: int) -> None:
        """Draw the noise of copy ``k``; the antithetic partner's must be there."""
        block, j, partner = self.copies[k]
        for site, noise in self.noise.items():
            if partner is not None:
                torch.neg(noise[partner], out=noise[k])
                continue
            key = self._keys[site, block]
            if site in self._flat:
                flat = self._flat[site][k]
                fill_sequence(self.family, key, first_number(len(flat), j), flat)
            else:
                shape = tuple(noise.shape[1:])
                noise[k].copy_(unit_noise(self.family, key, shape, range(j, j + 1))[0])


def worth_waiting(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    """Whether noise is large enough, and drawn on the CPU for the CPU, to be drawn copy by copy."""
    size = sum(math.prod(shape) for layer in layers for shape in site_shapes(problem, draw, layer))
    return problem.device.type == "cpu" and size > TILE
