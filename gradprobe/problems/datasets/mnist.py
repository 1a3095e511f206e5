"""MNIST: grey pictures of handwritten digits."""

from __future__ import annotations

from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._binary import grey
from gradprobe.problems.datasets._named import Public, check_flag

NORM = (0.1307,), (0.3081,)
"""Mean and standard deviation over all training pixels, as in PyTorch's own examples."""

MNIST = Public(
    "mnist",
    "ylecun/mnist",
    original="put the idx files of https://ossci-datasets.s3.amazonaws.com/mnist/ there",
    folders=("MNIST",),
)


@register(
    "mnist",
    summary="MNIST: 70,000 handwritten digits of 1x28x28 pixels, ten classes (LeCun 1998); to be downloaded",
    offers=("input_shape", "classes"),
    download=True,
)
def mnist(split: str = "train", normalize: bool = False) -> Data:
    """One split of MNIST, pixels scaled to [0, 1], in the order of the files.

    Looked for in the data folder (GRADPROBE_DATA, else ``./data``), in ``mnist`` or ``MNIST`` (and
    ``raw`` in it, as torchvision has it): the idx files, also as .gz, or the hub's parquet files; then on the
    Hugging Face hub.

    Args:
        split: ``"train"`` (60,000) or ``"test"`` (10,000).
        normalize: Also subtract the mean and divide by the standard deviation, :data:`NORM`.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    MNIST.check_split(split)
    check_flag(normalize)
    return grey(MNIST, split, NORM if normalize else None)
