"""Random numbers of what is loaded: always the same ones, and the user's own generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gradprobe.core.hooks import untouched_globals


def seed_all() -> None:
    """Seed torch, NumPy and Python with 0."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - users' code draws from it
    random.seed(0)


@contextmanager
def seeded() -> Iterator[None]:
    """Seed 0 inside; the global generators are given back as they were."""
    with untouched_globals():
        seed_all()
        yield
