"""Unit noise of some copies at every site of a draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import Plain, Structured, Wanted, is_structured, make_family
from gradprobe.engine.parts import Part, whole
from gradprobe.engine.sites import Site, dtype_of, site_shapes
from gradprobe.engine.tiles import fill_copies, laid_out

Shapes = dict[Site, tuple[int, ...]]


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
    if not partners:
        copies = [replace(part, paired=False) for part in copies]
    on_device = streams.drawn_on == "device" and problem.device.type == "cuda"
    device = problem.device if on_device else torch.device("cpu")
    family, shapes = make_family(draw.noise), _shapes(problem, draw, layers)
    if is_structured(family):
        noise = _structured(family, draw, shapes, copies, streams, device)
    else:
        noise = _plain(cast(Plain, family), draw, shapes, copies, streams, device)
    types = {layer.name: dtype_of(problem, layer) for layer in layers}
    return {site: eps.to(device=problem.device, dtype=types[site[0]]) for site, eps in noise.items()}


def noise_refusal(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> str:
    """Why a draw's family cannot serve layers that are noisy together; empty if it can."""
    family = make_family(draw.noise)
    return family.refusal(_shapes(problem, draw, layers)) if is_structured(family) else ""


def _shapes(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> Shapes:
    """Shape of one copy's noise at each site."""
    return {
        (layer.name, number): shape
        for layer in layers
        for number, shape in enumerate(site_shapes(problem, draw, layer))
    }


def _plain(
    family: Plain, draw: Draw, shapes: Shapes, copies: Sequence[Part], streams: Streams, device: torch.device
) -> dict[Site, torch.Tensor]:
    """Each site has a sequence of its own."""
    n = sum(part.copies for part in copies)
    noise = {}
    for site, shape in shapes.items():
        rest = flat = torch.empty(n, math.prod(shape), dtype=torch.float32, device=device)
        for part in copies:
            key = streams.key(draw.noise, draw.where, *site, part.block)
            drawn, rest = rest.split([len(part.drawn), len(rest) - len(part.drawn)])
            fill_copies(family, key, part.drawn, drawn)
            if part.paired:
                negative, rest = rest.split([len(drawn), len(rest) - len(drawn)])
                torch.neg(drawn, out=negative)
        noise[site] = laid_out(flat, n, shape)
    return noise


def _structured(
    family: Structured,
    draw: Draw,
    shapes: Shapes,
    copies: Sequence[Part],
    streams: Streams,
    device: torch.device,
) -> dict[Site, torch.Tensor]:
    """All sites at once, one part of a block after another.

    Raises:
        UsageError: The family cannot serve sites of these shapes.
    """
    if why := family.refusal(shapes):
        raise UsageError(f"noise={draw.noise} cannot serve layer {next(iter(shapes))[0]!r}: {why}.")
    lead = int(draw.where == "weights" and draw.share == "sample")
    found: dict[Site, list[torch.Tensor]] = {site: [] for site in shapes}
    for part in copies:

        def key(name: str, number: int, block: int = part.block) -> int:
            return streams.key(draw.noise, draw.where, name, number, block)

        for site, eps in family.noise(Wanted(shapes, lead, part.drawn, key, device)).items():
            found[site] += [eps, -eps] if part.paired else [eps]
    return {site: torch.cat(each) if len(each) > 1 else each[0] for site, each in found.items()}


def in_layout(noise: dict[Site, torch.Tensor], layout: str) -> dict[Site, torch.Tensor]:
    """Noise as an engine wants it in memory: images are drawn with their channels last."""
    return noise if layout else {site: eps.contiguous() for site, eps in noise.items()}
