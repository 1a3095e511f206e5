"""MNIST: grey pictures of handwritten digits."""

from __future__ import annotations

from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._binary import idx_pictures
from gradprobe.problems.datasets._named import Public, check_flag, from_pixels, with_norm

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
    norm = NORM if normalize else None
    start = "t10k" if split == "test" else "train"
    files = MNIST.find(f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte")
    if files is not None:
        return from_pixels("mnist", *idx_pictures(*files), 10, norm)
    return with_norm(MNIST.from_tables(split, {"channels": 1}), norm)
