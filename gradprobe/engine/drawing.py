"""Unit noise of some copies at every site of a draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Family
from gradprobe.engine.parts import Part, whole
from gradprobe.engine.sites import Site, dtype_of, site_shapes
from gradprobe.engine.tiles import fill_copies, laid_out


def make_noise(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    copies: Block | Sequence[Part],
    streams: Streams,
    partners: bool = True,
) -> dict[Site, torch.Tensor]:
    """Unit noise of some copies for every site, ``[n, *shape]``; depends on keys (and the device) alone.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        copies: Which copies: a block, or parts of blocks.
        streams: Noise of the seed.
        partners: Whether antithetic partners, which have the negative of a noise that is there, have rows too.
    """
    if isinstance(copies, Block):
        draw.check_block(copies.copies)
        copies = [whole(copies, draw.antithetic)]
    on_device = streams.drawn_on == "device" and problem.device.type == "cuda"
    device = problem.device if on_device else torch.device("cpu")
    family: Family = NOISE.get(draw.noise)()
    noise = {}
    for layer in layers:
        for number, shape in enumerate(site_shapes(problem, draw, layer)):
            n = sum(part.copies if partners else len(part.drawn) for part in copies)
            flat = torch.empty(n, math.prod(shape), dtype=torch.float32, device=device)
            rest = flat
            for part in copies:
                key = streams.key(draw.noise, draw.where, layer.name, number, part.block)
                drawn, rest = rest.split([len(part.drawn), len(rest) - len(part.drawn)])
                fill_copies(family, key, part.drawn, drawn)
                if part.paired and partners:
                    negative, rest = rest.split([len(drawn), len(rest) - len(drawn)])
                    torch.neg(drawn, out=negative)
            eps = laid_out(flat, n, shape)
            noise[layer.name, number] = eps.to(device=problem.device, dtype=dtype_of(problem, layer))
    return noise


def in_layout(noise: dict[Site, torch.Tensor], layout: str) -> dict[Site, torch.Tensor]:
    """Noise as an engine wants it in memory: images are drawn with their channels last."""
    return noise if layout else {site: eps.contiguous() for site, eps in noise.items()}
