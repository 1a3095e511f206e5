"""CIFAR-10: small colour pictures of ten kinds of things."""

from __future__ import annotations

from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._binary import cifar
from gradprobe.problems.datasets._named import Public, check_flag

NORM = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of each channel over all training pixels (Stevens et al., "Deep learning with
PyTorch", chapter 7). The (0.2023, 0.1994, 0.2010) that is also in use is the mean of the pictures' own deviations."""

BINARY = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10 = Public(
    "cifar10",
    "uoft-cs/cifar10",
    original=f"unpack {BINARY} there",
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
)


@register(
    "cifar10",
    summary="CIFAR-10: 60,000 colour pictures of 3x32x32 pixels, ten classes (Krizhevsky 2009); to be downloaded",
    offers=("input_shape", "classes"),
    download=True,
)
def cifar10(split: str = "train", normalize: bool = False) -> Data:
    """One split of CIFAR-10, pixels scaled to [0, 1], in the order of the files.

    Looked for in the data folder (GRADPROBE_DATA, else ``./data``): the binary version
    (``cifar-10-batches-bin``), or the hub's parquet files in ``cifar10``; then on the Hugging Face hub.

    Args:
        split: ``"train"`` (50,000) or ``"test"`` (10,000).
        normalize: Also subtract the mean and divide by the standard deviation of each channel, :data:`NORM`.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    CIFAR10.check_split(split)
    check_flag(normalize)
    files = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    return cifar(CIFAR10, split, files, 1, 10, NORM if normalize else None, BINARY)
