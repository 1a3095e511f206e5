"""CIFAR-100: small colour pictures of a hundred kinds of things."""

from __future__ import annotations

from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._binary import cifar
from gradprobe.problems.datasets._named import Public, check_flag

NORM = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""Mean and standard deviation of each channel over all training pixels, as in common use."""

BINARY = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
CIFAR100 = Public(
    "cifar100",
    "uoft-cs/cifar100",
    original=f"unpack {BINARY} there",
    columns={"target": "fine_label"},
    folders=("cifar-100-binary", "cifar-100-python"),
)


@register(
    "cifar100",
    summary="CIFAR-100: 60,000 colour pictures of 3x32x32 pixels, 100 classes (Krizhevsky 2009); to be downloaded",
    offers=("input_shape", "classes"),
    download=True,
)
def cifar100(split: str = "train", normalize: bool = False) -> Data:
    """One split of CIFAR-100 with its fine labels, pixels scaled to [0, 1], in the order of the files.

    Looked for in the data folder (GRADPROBE_DATA, else ``./data``): the binary version (``cifar-100-binary``), or
    the hub's parquet files in ``cifar100``; then on the Hugging Face hub.

    Args:
        split: ``"train"`` (50,000) or ``"test"`` (10,000).
        normalize: Also subtract the mean and divide by the standard deviation of each channel, :data:`NORM`.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    CIFAR100.check_split(split)
    check_flag(normalize)
    return cifar(CIFAR100, split, [f"{split}.bin"], 2, 100, NORM if normalize else None, BINARY)
