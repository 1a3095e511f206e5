"""Global generators of random numbers: seeded for one call, and what the call did with them."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable

import numpy as np
import torch

from gradprobe.checkup.randomness import Drawing

GENERATORS = ("torch", "numpy", "random")


def seed_all(key: int) -> None:
    """Seed torch (on every device), NumPy and Python from one key of 128 bits."""
    of_torch = key & (2**63 - 1)
    torch.default_generator.manual_seed(of_torch)  # manual_seed would ask for the stack each time
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(of_torch)
    np.random.seed((key >> 64) & (2**32 - 1))  # noqa: NPY002 - what the audited code may draw from
    random.seed(key)


def states() -> dict[str, str]:
    """Digest of the state of each global generator, by name."""
    of_numpy = np.random.get_state()  # noqa: NPY002 - likewise
    raw = (torch.get_rng_state().numpy().tobytes(), pickle.dumps(of_numpy), pickle.dumps(random.getstate()))
    return {name: hashlib.sha256(x).hexdigest() for name, x in zip(GENERATORS, raw, strict=True)}


def random_operations(call: Callable[[], object]) -> tuple[str, ...]:
    """Names of torch's random operations that a call runs, such as ``randn``; () also where that cannot be seen."""
    with Drawing() as drawing:
        try:
            call()
        except Exception:  # some transforms refuse a dispatch mode; then nothing is known
            return ()
    return tuple(sorted(drawing.names))
