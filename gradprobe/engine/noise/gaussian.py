"""Gaussian noise: score eps / sigma."""

import functools
import math
import threading

import numpy as np
import torch

from gradprobe.engine.noise import register

STATE_WORDS = 624
"""Words of 32 bits in the state of the Mersenne Twister."""

HEADER = 24
"""Bytes before them in torch's generator state: seed, numbers left, whether seeded, position."""


@register("gaussian", summary="normal; score eps/sigma")
class Gaussian:
    """N(0, 1) at the speed of torch's own generator, whose whole state (not its 32-bit seed) comes from the key.

    Box and Muller's transform of 24-bit uniforms, as in torch: the largest number is 5.77.
    """

    exact = True
    words = STATE_WORDS // 2

    def fill(self, words: np.ndarray, out: torch.Tensor) -> None:
        """Standard normals."""
        state = words.view(np.uint32)
        if torch_takes_states():
            out.normal_(generator=_generator(state))
        else:
            out.copy_(normals(state, len(out)))

    def fill_on_device(self, generator: torch.Generator, out: torch.Tensor) -> None:
        """Standard normals."""
        out.normal_(generator=generator)

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Gauss's rule for the half-normal density: exact for polynomials of degree below twice the count.

        The recurrence of its orthogonal polynomials comes from a fine rule (Stieltjes' procedure; Gautschi,
        Orthogonal Polynomials, 2004, section 2.2.3), nodes and weights from that (Golub and Welsch 1969).
        """
        points, density = np.polynomial.legendre.leggauss(20 * count)
        points = 6.0 * (points + 1)  # what lies beyond 12 has a chance of 4e-33
        density = density * np.exp(-(points**2) / 2)
        density /= density.sum()
        diagonal, beside = np.zeros(count), np.zeros(count)
        before, now = np.zeros_like(points), np.ones_like(points)
        for k in range(count):  # orthonormal polynomials, one after another
            diagonal[k] = density @ (points * now**2)
            after = (points - diagonal[k]) * now - (beside[k - 1] if k else 0.0) * before
            beside[k] = np.sqrt(density @ after**2)
            before, now = now, after / beside[k]
        matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        nodes, vectors = np.linalg.eigh(matrix)
        return nodes, vectors[0] ** 2

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``eps``."""
        return noise


_local = threading.local()


def _generator(state: np.ndarray) -> torch.Generator:
    """Torch's generator at the start of a Mersenne Twister state ``[624]``."""
    if not hasattr(_local, "generator"):
        _local.generator = torch.Generator()
        _local.generator.manual_seed(0)
        _local.bytes = _local.generator.get_state().numpy()
        _local.bytes[:HEADER] = np.array([0, 1 | 1 << 32, 0], dtype=np.uint64).view(np.uint8)
        _local.words = _local.bytes[HEADER : HEADER + 8 * STATE_WORDS].view(np.uint64)
    _local.words[:] = state
    _local.generator.set_state(torch.from_numpy(_local.bytes))
    return _local.generator


@functools.cache
def torch_takes_states() -> bool:
    """Whether this torch's generator and its normals are what they were when this was written.

    If not, :func:`normals` makes the same numbers (up to rounding) more slowly.
    """
    state = np.random.Philox(0).random_raw(STATE_WORDS // 2).view(np.uint32)
    try:
        found = torch.empty(1024, dtype=torch.float32, device="cpu").normal_(generator=_generator(state))
    except (RuntimeError, ValueError):
        return False
    return bool(torch.allclose(found, normals(state, 1024), atol=1e-4))


def normals(state: np.ndarray, count: int) -> torch.Tensor:
    """Standard normals from a state of the Mersenne Twister, step by step.

    Of each 16 uniforms the first eight give radii and the last eight angles.

    Args:
        state: 624 words of 32 bits.
        count: How many numbers, a multiple of 16.
    """
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": state, "pos": STATE_WORDS}}
    uniform = (twister.random_raw(count) & 0xFFFFFF).astype(np.float64).reshape(-1, 2, 8) / 2**24
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * math.pi * uniform[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(pairs.reshape(-1).astype(np.float32))
