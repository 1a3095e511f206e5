"""Unit noise in tiles that can each be drawn alone: the numbers depend on neither chunks, nor order, nor threads.

The noise of a stream is one long sequence, cut into tiles of 32,768 numbers; a copy with more than that starts with a
new tile. The stream's key is the key of a counter-based generator (Philox); a family makes each tile from a fixed
number of its words.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from gradprobe.engine.noise import Plain

TILE = 32_768
STEP = 16
"""A tile may be filled up to any multiple of this; families give the same numbers as for the whole tile."""

ALONE = 4
"""Tiles up to which one thread draws: sharing them out costs more."""

WORDS_PER_COUNT = 4
"""64-bit words that Philox makes at each step of its counter."""


def sequence(family: Plain, key: int, start: int, stop: int) -> torch.Tensor:
    """Numbers ``start`` to ``stop - 1`` of a stream ``[stop - start]``, float32.

    Args:
        family: The noise family.
        key: Key of the stream, 128 bits.
        start: First number.
        stop: One after the last.
    """
    out = torch.empty(stop - start, dtype=torch.float32, device="cpu")
    fill_sequence(family, key, start, out)
    return out


def fill_sequence(family: Plain, key: int, start: int, out: torch.Tensor) -> None:
    """Fill ``out`` with the numbers of a stream from ``start`` on; see :func:`sequence`."""
    stop = start + len(out)
    tiles = range(start // TILE, -(-stop // TILE))

    def fill(part: range) -> None:
        generator = _philox(key, part.start * family.words // WORDS_PER_COUNT)
        for tile in part:
            words = generator.random_raw(family.words)
            low, high = max(start - tile * TILE, 0), min(stop - tile * TILE, TILE)
            at = tile * TILE + low - start
            if low == 0 and high % STEP == 0:
                family.fill(words, out[at : at + high])
            else:
                whole = torch.empty(-(-high // STEP) * STEP, dtype=torch.float32, device="cpu")
                family.fill(words, whole)
                out[at : at + high - low] = whole[low:high]

    threads = torch.get_num_threads()
    if threads == 1 or len(tiles) <= ALONE:
        fill(tiles)
        return
    share = -(-len(tiles) // threads)  # numpy and torch release the interpreter while they draw
    list(_pool(threads).map(fill, [tiles[i : i + share] for i in range(0, len(tiles), share)]))


def _philox(key: int, counter: int) -> np.random.Philox:
    """This thread's Philox with a key, so many steps after its start; a new one would ask the system for a seed."""
    if not hasattr(_local, "philox"):
        _local.philox = np.random.Philox(0)
        _local.state = _local.philox.state | {"buffer_pos": WORDS_PER_COUNT, "has_uint32": 0, "uinteger": 0}
    _local.state["state"] = {"counter": _words(counter, 4), "key": _words(key, 2)}
    _local.philox.state = _local.state
    found: np.random.Philox = _local.philox
    return found


def _words(number: int, count: int) -> np.ndarray:
    """A whole number in words of 64 bits, the lowest first."""
    return np.frombuffer(number.to_bytes(8 * count, "little"), dtype="<u8")


_local = threading.local()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "gradprobe-noise")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def unit_noise(
    family: Plain, key: int, shape: tuple[int, ...], copies: range, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Unit noise of some copies of a block ``[len(copies), *shape]``, float32.

    Images (``shape`` of four axes: rows, channels, height, width) are drawn with the channels last in memory,
    where convolutions are fastest on a CPU and noise can be added without rearranging it.

    Args:
        family: The noise family.
        key: Key of the stream.
        shape: Shape of one copy's noise.
        copies: Which copies of the block, consecutive.
        device: Where to draw.
    """
    flat = torch.empty(len(copies), math.prod(shape), dtype=torch.float32, device=device)
    fill_copies(family, key, copies, flat)
    return laid_out(flat, len(copies), shape)


def fill_copies(family: Plain, key: int, copies: range, out: torch.Tensor) -> None:
    """Fill ``out`` ``[len(copies), size]`` with the numbers of some copies; chunks do not change them.

    On a CUDA device its own generator is used, with a key for every copy: the 64 bits of the generator's seed and
    60 of its offset. The numbers then depend on the kind of device, which is part of a run's identity.

    Args:
        family: The noise family.
        key: Key of the stream.
        copies: Which copies of the block, consecutive.
        out: Contiguous, float32.
    """
    size = out.shape[1]
    if out.device.type != "cpu":
        generator = torch.Generator(out.device)
        for row, copy in zip(out, copies, strict=True):
            seed, offset = device_key(key, copy)
            generator.manual_seed(seed)
            generator.set_offset(offset)
            family.fill_on_device(generator, row)
    elif size <= TILE:
        fill_sequence(family, key, first_number(size, copies.start), out.view(-1))
    else:
        for row, copy in zip(out, copies, strict=True):
            fill_sequence(family, key, first_number(size, copy), row)


def first_number(size: int, copy: int) -> int:
    """Where a copy of ``size`` numbers starts in its stream: a large one with a tile of its own."""
    return copy * size if size <= TILE else copy * -(-size // TILE) * TILE


def device_key(key: int, copy: int) -> tuple[int, int]:
    """Seed (64 bits) and offset (60 bits, a multiple of 4) of a copy's generator on a device."""
    bits = hashlib.blake2b(f"{key} {copy}".encode(), digest_size=16).digest()
    return int.from_bytes(bits[:8], "little"), int.from_bytes(bits[8:], "little") >> 4 & ~3


def laid_out(flat: torch.Tensor, copies: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A sequence as ``[copies, *shape]``; images with their channels last in memory."""
    if len(shape) != 4:
        return flat.view(copies, *shape)
    rows, channels, height, width = shape
    return flat.view(copies, rows, height, width, channels).permute(0, 1, 4, 2, 3)
