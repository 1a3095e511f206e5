"""Fashion-MNIST: grey pictures of articles of clothing."""

from __future__ import annotations

from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._binary import grey
from gradprobe.problems.datasets._named import Public, check_flag

NORM = (0.2860,), (0.3530,)
"""Mean and standard deviation over all training pixels, as in common use."""

FASHION = Public(
    "fashion-mnist",
    "zalando-datasets/fashion_mnist",
    original="put the idx files of https://github.com/zalandoresearch/fashion-mnist there",
    folders=("FashionMNIST",),
)


@register(
    "fashion-mnist",
    summary="Fashion-MNIST: 70,000 articles of clothing of 1x28x28 pixels, ten classes (Xiao 2017); to be downloaded",
    offers=("input_shape", "classes"),
    download=True,
)
def fashion_mnist(split: str = "train", normalize: bool = False) -> Data:
    """One split of Fashion-MNIST, pixels scaled to [0, 1], in the order of the files.

    Looked for in the data folder (GRADPROBE_DATA, else ``./data``), in ``fashion-mnist`` or ``FashionMNIST`` (and
    ``raw`` in it, as torchvision has it): the idx files, also as .gz, or the hub's parquet files; then on the
    Hugging Face hub.

    Args:
        split: ``"train"`` (60,000) or ``"test"`` (10,000).
        normalize: Also subtract the mean and divide by the standard deviation, :data:`NORM`.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    FASHION.check_split(split)
    check_flag(normalize)
    return grey(FASHION, split, NORM if normalize else None)
