"""Sobol noise: the copies of a block are scrambled quasi-random points, made normal."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import torch

from gradprobe.engine.noise import Site, Wanted, register
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import laid_out

MOST = 21_201
"""Coordinates for which direction numbers are known (Joe and Kuo, 2008)."""

BITS = 32
"""Binary digits of a coordinate."""

AT_ONCE = 1 << 15
"""Numbers that are made normal at once, so that they stay in cache."""

DIGITS = 30
"""Binary digits of scipy's unscrambled points."""


@register("sobol", summary="normal by scrambled Sobol points, one for each copy of a block; score eps/sigma")
class Sobol:
    """Copy k of a block is point k of a Sobol sequence over all sites that are noisy together, made normal.

    Every block is scrambled anew from its key, by a random linear scramble of the digits and a random digital shift
    (Matousek, J. Complexity 14, 1998). Each copy's noise on its own is then exactly standard normal with independent
    coordinates (on a grid of 2^-32 in probability; the largest number is 6.3), blocks are independent, and the mean
    of a block is as unbiased as with independent copies. Within a block the copies are spread evenly, so that errors
    which are smooth functions of few coordinates cancel: the variance of a block of m falls faster than 1/m.

    Where not:

    - More than 21,201 coordinates (of all sites together, activations of every sample) are refused.
    - In hundreds of coordinates there is little to gain unless few of them matter; nothing is lost but time.
    - The block is part of the method: only within a block are the copies even, and they are evenest where their
      number (that of pairs, if antithetic) is a power of two. Other blocks are served, as unbiased.
    - The copies of a block depend on each other: ``centre=mean`` and ``per_sample`` need independent ones and are
      refused. Antithetic pairs are points and their mirror images.
    - Under ``injection=joint`` the noise of a layer depends on which others are probed: it is one sequence.

    The points are made on the CPU wherever the model is.
    """

    exact = True
    where = ("activations", "weights")
    independent = False

    def noise(self, wanted: Wanted) -> dict[Site, torch.Tensor]:
        """One sequence for all sites, in their order."""
        sizes = [math.prod(shape) for shape in wanted.shapes.values()]
        names = list(dict.fromkeys(layer for layer, _ in wanted.shapes))
        key = wanted.key(" & ".join(names), 0)
        flat = normals(points(sum(sizes), key, wanted.copies)).to(wanted.device)
        count = len(wanted.copies)
        each = flat.split(sizes, 1)
        return {
            site: laid_out(one.contiguous(), count, shape)
            for (site, shape), one in zip(wanted.shapes.items(), each, strict=True)
        }

    def refusal(self, shapes: Mapping[Site, tuple[int, ...]]) -> str:
        """More coordinates than there are direction numbers."""
        size = sum(math.prod(shape) for shape in shapes.values())
        if size <= MOST:
            return ""
        layers = len({layer for layer, _ in shapes})
        together = f"noise of {layers} layers at once" if layers > 1 else "noise"
        return (
            f"its {together} has {size:,} coordinates, and sobol has points in at most {MOST:,}; use noise=gaussian"
            + (
                ", or injection=layerwise"
                if layers > 1
                else ", or share=batch or weight noise if that is smaller"
            )
        )

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Gauss's rule for the half-normal density: a copy on its own is normal."""
        return Gaussian().half(count)

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``eps``."""
        return noise


def points(size: int, key: int, copies: range) -> np.ndarray:
    """Scrambled points ``[copies, size]`` as whole numbers below 2^32; any part is that part of the whole.

    Args:
        size: Coordinates.
        key: Key of the block's stream, 128 bits.
        copies: Which points, consecutive.
    """
    levels = max(copies.stop - 1, 1).bit_length()
    half = -(-size // 2)
    random = np.random.Philox(key=key).random_raw((levels + 1) * half)
    words = random.view(np.uint32).reshape(levels + 1, 2 * half)[:, :size]
    shift, steps = words[0], scrambled(directions(size, levels), words[1:])
    found = np.empty((len(copies), size), dtype=np.uint32)
    if not len(copies):
        return found
    gray = copies.start ^ (copies.start >> 1)
    found[0] = shift
    for level in range(levels):
        if gray >> level & 1:
            found[0] ^= steps[level]
    for row, k in enumerate(copies[1:], 1):
        np.bitwise_xor(found[row - 1], steps[(k & -k).bit_length() - 1], out=found[row])
    return found


def scrambled(steps: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Direction numbers ``[levels, size]`` after a random linear map of their digits, one for each coordinate.

    The map is lower triangular with ones on its diagonal: digit i goes to digit i and to random ones of those below.

    Args:
        steps: Direction numbers; that of level k has no digit below k.
        random: Words for the columns of the maps ``[levels, size]``.
    """
    found = np.zeros_like(steps)
    for digit, word in enumerate(random):
        place = BITS - 1 - digit
        column = word & np.uint32((1 << place) - 1) | np.uint32(1 << place)
        for level in range(digit, len(steps)):
            found[level] ^= np.where(steps[level] >> np.uint32(place) & np.uint32(1), column, np.uint32(0))
    return found


@functools.lru_cache(maxsize=16)
def directions(size: int, levels: int) -> np.ndarray:
    """Direction numbers ``[levels, size]`` of an unscrambled sequence: that of level k is point 2^(k+1) - 1."""
    from scipy.stats import qmc

    engine = qmc.Sobol(size, scramble=False)
    found = np.empty((levels, size), dtype=np.uint32)
    for level in range(levels):
        engine.fast_forward(2**level if level == 0 else 2**level - 1)
        digits = engine.random(1)[0] * 2.0**DIGITS
        found[level] = digits.astype(np.uint32) << np.uint32(BITS - DIGITS)
    found.setflags(write=False)
    return found


def normals(found: np.ndarray) -> torch.Tensor:
    """Whole numbers below 2^32 through the inverse of the normal CDF, float32; mirror images have opposite signs."""
    out = torch.empty(found.shape, dtype=torch.float32)
    words, numbers = found.reshape(-1), out.view(-1)
    for start in range(0, len(words), AT_ONCE):
        some = words[start : start + AT_ONCE]
        tail = torch.from_numpy(np.minimum(some, ~some).astype(np.float64)).add_(0.5).mul_(2.0**-BITS)
        upper = torch.from_numpy(some >= np.uint32(1 << (BITS - 1)))
        z = torch.special.ndtri(tail)  # of the smaller tail, so that neither end loses digits
        numbers[start : start + AT_ONCE] = torch.where(upper, -z, z)
    return out
