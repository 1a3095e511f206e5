"""Random numbers of what is loaded: always the same ones, and the user's own generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gradprobe.core.hooks import untouched_globals


def seed_all(seed: int = 0) -> None:
    """Seed torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - users' code draws from it
    random.seed(seed)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """A seed inside; the global generators are given back as they were."""
    with untouched_globals():
        seed_all(seed)
        yield
