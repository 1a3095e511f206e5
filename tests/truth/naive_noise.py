"""Noise of structured families written down once more, one copy, one coordinate and one digit at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import qmc

from gradprobe.core.spec import parse
from gradprobe.core.streams import Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import unit_noise

Shapes = dict[tuple[str, int], tuple[int, ...]]


def structured(
    draw: Draw, shapes: Shapes, repeats: int, streams: Streams, block: int, copies: int
) -> dict[tuple[str, int], torch.Tensor]:
    """Unit noise of the first copies of a block.

    Args:
        draw: Whose family.
        shapes: Shape of each site.
        repeats: How many of their first axes only repeat the rest.
        streams: Noise of the seed.
        block: Index of the block.
        copies: How many.
    """
    family = parse(draw.noise)
    if family.name == "low-rank":
        return {
            site: low_rank(
                streams.key(draw.noise, "weights", *site, block), shape, repeats, copies, **family.options
            )
            for site, shape in shapes.items()
        }
    assert family.name == "sobol"
    sizes = [math.prod(shape) for shape in shapes.values()]
    names = " & ".join(dict.fromkeys(layer for layer, _ in shapes))
    numbers = points(sum(sizes), streams.key("sobol", draw.where, names, 0, block), copies)
    normal = torch.from_numpy(ndtri((numbers.astype(np.float64) + 0.5) / 2**32))
    found = {}
    for (site, shape), part in zip(shapes.items(), normal.split(sizes, 1), strict=True):
        if len(shape) == 4:  # images have their channels last
            rows, channels, height, width = shape
            found[site] = part.reshape(copies, rows, height, width, channels).permute(0, 1, 4, 2, 3)
        else:
            found[site] = part.reshape(copies, *shape)
    return found


def low_rank(key: int, shape: tuple[int, ...], repeats: int, copies: int, rank: int = 1) -> torch.Tensor:
    """``[copies, *shape]``, float32: one matrix product for each copy and repetition; vectors are normal.

    Of rank 1 each number is one product of two, which float32 rounds in one way.
    """
    many, own = math.prod(shape[:repeats]), shape[repeats:]
    m = own[0] if own else 1
    n = math.prod(own[1:])
    if 1 in (m, n):
        return unit_noise(Gaussian(), key, (math.prod(shape),), range(copies)).view(copies, *shape)
    flat = unit_noise(Gaussian(), key, (many, rank * (m + n)), range(copies)).double()
    found = torch.empty(copies, many, *own, dtype=torch.float64)
    for k in range(copies):
        for i in range(many):
            a, b = flat[k, i, : rank * m].view(rank, m), flat[k, i, rank * m :].view(rank, n)
            found[k, i] = (a.T @ b / math.sqrt(rank)).view(own)
    return found.float().view(copies, *shape)


def points(size: int, key: int, copies: int) -> np.ndarray:
    """The first scrambled points, from scipy's unscrambled ones: a product of a matrix and a vector of bits each."""
    levels = max(copies - 1, 1).bit_length()
    plain = qmc.Sobol(size, scramble=False).random_base2(levels)[:copies]
    half = -(-size // 2)
    words = np.random.Philox(key=key).random_raw((levels + 1) * half).view(np.uint32)
    words = words.reshape(levels + 1, 2 * half)
    found = np.empty((copies, size), dtype=np.uint32)
    for c in range(size):
        matrix = np.eye(32, dtype=int)
        for column in range(levels):
            matrix[column + 1 :, column] = _bits(int(words[column + 1, c]))[column + 1 :]
        shift = _bits(int(words[0, c]))
        for k in range(copies):
            bits = (matrix @ _bits(int(plain[k, c] * 2**32)) + shift) % 2
            found[k, c] = int("".join(map(str, bits)), 2)
    return found


def _bits(word: int) -> np.ndarray:
    """The binary digits of a word, the highest first."""
    return np.array([int(digit) for digit in f"{word:032b}"])
