"""Unit noise in tiles that each have a key: the numbers depend on neither chunks, nor order, nor threads.

The noise of a stream is one long sequence, cut into tiles of 32,768 numbers. Tile ``t`` of the stream with key
``k`` starts from Philox at key ``k`` and counter ``t 2^64``, so any part of a stream can be drawn alone.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from gradprobe.engine.noise import Family

TILE = 32_768
STEP = 16
"""A tile may be filled up to any multiple of this; families give the same numbers as for the whole tile."""

ALONE = 8
"""Tiles up to which one thread draws: starting others costs more."""


def words(key: int, tile: int, count: int) -> np.ndarray:
    """The first random 64-bit words of a tile ``[count]``."""
    return np.random.Philox(key=key, counter=tile << 64).random_raw(count)


def sequence(family: Family, key: int, start: int, stop: int) -> torch.Tensor:
    """Numbers ``start`` to ``stop - 1`` of a stream ``[stop - start]``, float32.

    Args:
        family: The noise family.
        key: Key of the stream, 128 bits.
        start: First number.
        stop: One after the last.
    """
    out = torch.empty(stop - start)
    tiles = range(start // TILE, -(-stop // TILE))
    threads = torch.get_num_threads()

    def fill(part: range) -> None:
        for tile in part:
            low, high = max(start - tile * TILE, 0), min(stop - tile * TILE, TILE)
            at = tile * TILE + low - start
            if low == 0 and high == TILE:
                family.fill(key, tile, out[at : at + TILE])
            else:
                whole = torch.empty(-(-high // STEP) * STEP)
                family.fill(key, tile, whole)
                out[at : at + high - low] = whole[low:high]

    if threads == 1 or len(tiles) <= ALONE:
        fill(tiles)
        return out
    share = -(-len(tiles) // threads)
    with ThreadPoolExecutor(threads) as pool:  # numpy and torch release the interpreter while they draw
        list(pool.map(fill, [tiles[i : i + share] for i in range(0, len(tiles), share)]))
    return out


def unit_noise(family: Family, key: int, shape: tuple[int, ...], copies: range) -> torch.Tensor:
    """Unit noise of some copies of a block ``[len(copies), *shape]``, float32.

    Images (``shape`` of four axes: rows, channels, height, width) are drawn with the channels last in memory,
    where convolutions are fastest on a CPU and noise can be added without rearranging it.

    Args:
        family: The noise family.
        key: Key of the stream.
        shape: Shape of one copy's noise.
        copies: Which copies of the block, consecutive.
    """
    size = math.prod(shape)
    flat = sequence(family, key, copies.start * size, copies.stop * size)
    return laid_out(flat, len(copies), shape)


def laid_out(flat: torch.Tensor, copies: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A sequence as ``[copies, *shape]``; images with their channels last in memory."""
    if len(shape) != 4:
        return flat.view(copies, *shape)
    rows, channels, height, width = shape
    return flat.view(copies, rows, height, width, channels).permute(0, 1, 4, 2, 3)
