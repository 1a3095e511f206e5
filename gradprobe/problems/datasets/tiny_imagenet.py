"""Tiny ImageNet: 200 classes of ImageNet at 64x64 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._named import Public, check_flag, with_norm
from gradprobe.problems.encode import picture_encoder
from gradprobe.problems.lazy import LazyData

NORM = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel of ImageNet, as torchvision's models expect."""

TINY = Public(
    "tiny-imagenet",
    "zh-plus/tiny-imagenet",
    ("train", "valid"),
    "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip there",
    folders=("tiny-imagenet-200",),
)


@register(
    "tiny-imagenet",
    summary="Tiny ImageNet: 110,000 colour pictures of 3x64x64 pixels, 200 classes (CS231n); to be downloaded",
    offers=("input_shape", "classes"),
    download=True,
)
def tiny_imagenet(split: str = "train", normalize: bool = False) -> Data:
    """One split of Tiny ImageNet, pixels scaled to [0, 1]; grey pictures are repeated for three channels.

    Looked for in the data folder (GRADPROBE_DATA, else ``./data``): the original files (``tiny-imagenet-200``), or
    the hub's parquet files in ``tiny-imagenet``; then on the Hugging Face hub. Classes count in the order of their
    WordNet numbers; the original files come class after class.

    Args:
        split: ``"train"`` (100,000) or ``"valid"`` (10,000); the test split has no labels.
        normalize: Also subtract the mean and divide by the standard deviation of each channel, :data:`NORM`.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    TINY.check_split(split)
    check_flag(normalize)
    norm = NORM if normalize else None
    files = TINY.find("wnids.txt")
    if files is not None:
        return with_norm(_original(files[0].parent, split), norm)
    return with_norm(TINY.from_tables(split, {"channels": 3}), norm)


def _original(folder: Path, split: str) -> LazyData:
    """The original files: ``train/<class>/images/*.JPEG``, ``val/images`` and ``val/val_annotations.txt``."""
    classes = sorted((folder / "wnids.txt").read_text(encoding="utf-8").split())
    place = {name: i for i, name in enumerate(classes)}
    if split == "train":
        rows = [
            (p, place[c]) for c in classes for p in sorted((folder / "train" / c / "images").glob("*.JPEG"))
        ]
    else:
        notes = folder / "val" / "val_annotations.txt"
        lines = notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else []
        cells = [line.split("\t") for line in lines]
        rows = [
            (folder / "val" / "images" / c[0], place[c[1]]) for c in cells if len(c) > 1 and c[1] in place
        ]
    if not rows:
        raise UsageError(
            f"{str(folder)!r} holds no pictures of the split {split!r}; unpack tiny-imagenet-200.zip again."
        )

    def read(first: int, size: int) -> tuple[Any, torch.Tensor]:
        from PIL import Image

        chosen = rows[first : first + size]
        pictures = []
        for path, _ in chosen:
            try:
                with Image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            except OSError as error:
                raise UsageError(
                    f"{str(path)!r} cannot be read as a picture; unpack tiny-imagenet-200.zip again."
                ) from error
        return pictures, torch.tensor([label for _, label in chosen])

    encode = picture_encoder(channels=3)
    return LazyData(
        read, len(rows), kind="image", encode=encode, classes=len(classes), name="data 'tiny-imagenet'"
    )
