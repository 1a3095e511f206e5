"""scikit-learn's handwritten digits: real, small, always there."""

from __future__ import annotations

import numpy as np
import torch

from gradprobe.core.errors import unknown
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register

TEST_SIZE = 360


@register(
    "digits",
    summary="1,797 handwritten digits of 1x8x8 pixels, ten classes (UCI, through scikit-learn)",
    offers=("input_shape", "classes"),
)
def digits(split: str = "train") -> Data:
    """One split of the digits, pixels scaled to [0, 1].

    The order is one fixed permutation; the first 360 samples are the test split, the other 1,437 the training
    split. A batch is a run of consecutive samples of a split.

    Args:
        split: ``"train"`` or ``"test"``.

    Raises:
        UsageError: Another split.
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    chosen = order[:TEST_SIZE] if split == "test" else order[TEST_SIZE:]
    inputs = torch.tensor(pixels[chosen] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return Data(inputs, torch.tensor(labels[chosen], dtype=torch.int64), 10)
