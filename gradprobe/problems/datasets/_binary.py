"""Pictures in the binary formats of their authors: CIFAR's records and MNIST's idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.data import Data
from gradprobe.problems.datasets._named import Bytes, Norm, Public, from_pixels, with_norm

PICTURE = 3 * 32 * 32
LARGEST = 2**28
"""Most bytes of an idx file that are read; MNIST and its like have 47 million."""


def cifar(
    public: Public, split: str, files: Sequence[str], labels: int, classes: int, norm: Norm, binary: str
) -> Data:
    """A split of CIFAR: the binary version, else the hub's tables.

    Args:
        public: Which one.
        split: Name of the split.
        files: Names of its files in the binary version.
        labels: Bytes before a picture, see :func:`cifar_records`.
        classes: Number of classes.
        norm: Mean and standard deviation of each channel, or None.
        binary: Where the binary version is, for messages.

    Raises:
        UsageError: The data are nowhere, or pickled.
    """
    found = public.find(*files)
    if found is not None:
        return from_pixels(public.name, *cifar_records(found, labels), classes, norm)
    refuse_pickles(public, binary)
    return with_norm(public.from_tables(split, {"channels": 3}), norm)


def grey(public: Public, split: str, norm: Norm) -> Data:
    """A split of MNIST or Fashion-MNIST: the idx files, else the hub's tables.

    Raises:
        UsageError: The data are nowhere, or cut off.
    """
    start = "t10k" if split == "test" else "train"
    files = public.find(f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte")
    if files is not None:
        return from_pixels(public.name, *idx_pictures(*files), 10, norm)
    return with_norm(public.from_tables(split, {"channels": 1}), norm)


def cifar_records(files: Sequence[Path], labels: int) -> tuple[Bytes, int]:
    """Records of ``labels`` bytes (the last is the class) and 3072 bytes of a picture, red, green, blue.

    Args:
        files: The files, in order.
        labels: Bytes before the picture: 1 for CIFAR-10, 2 (coarse, fine) for CIFAR-100.

    Returns:
        What reads rows, and how many there are.

    Raises:
        UsageError: A file is no whole number of records.
    """
    length = labels + PICTURE
    odd = next(
        (f for f in files if f.suffix == ".gz" or f.stat().st_size % length or not f.stat().st_size), None
    )
    if odd is not None:
        raise UsageError(
            f"{str(odd)!r} is no whole number of CIFAR records of {length} bytes; download the binary version "
            "again."
        )
    maps = [np.memmap(f, dtype=np.uint8, mode="r").reshape(-1, length) for f in files]
    starts = np.cumsum([0, *(len(m) for m in maps)])

    def read(first: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [m[max(first - s, 0) : max(first + size - s, 0)] for m, s in zip(maps, starts, strict=False)]
        rows = torch.from_numpy(np.concatenate(parts))
        return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].long()

    return read, int(starts[-1])


def refuse_pickles(public: Public, binary: str) -> None:
    """Say that the Python version of CIFAR is not read, where only that is there.

    Raises:
        UsageError: It is there.
    """
    for place in public.places():
        for folder in (place, *(p for p in place.iterdir() if p.is_dir())):
            if (folder / "batches.meta").is_file() or (folder / "meta").is_file():
                raise UsageError(
                    f"{str(folder)!r} is the Python version of {public.name}, which is pickled code that gradprobe "
                    f"does not run; download the binary version: {binary}."
                )


def idx(path: Path, axes: int) -> np.ndarray:
    """An idx file (or its .gz): magic number, sizes, bytes.

    Args:
        path: The file.
        axes: How many axes it must have.

    Raises:
        UsageError: It is no idx file of bytes with so many axes, or is cut off.
    """
    wrong = UsageError(f"{str(path)!r} is no whole idx file of bytes with {axes} axes; download it again.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            head = stream.read(4 + 4 * axes)
            if head[:4] != bytes([0, 0, 8, axes]) or len(head) != 4 + 4 * axes:
                raise wrong
            shape = [int(n) for n in np.frombuffer(head[4:], ">u4")]
            size = math.prod(shape)
            if size > LARGEST:
                raise wrong
            raw = stream.read(
                size + 1
            )  # one more than there may be: a small .gz can hold any number of bytes
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{str(path)!r} cannot be unpacked ({error}); download it again.") from error
    if len(raw) != size:
        raise wrong
    return np.frombuffer(raw, np.uint8).reshape(shape)


def idx_pictures(images: Path, labels: Path) -> tuple[Bytes, int]:
    """Grey pictures and classes from two idx files.

    Raises:
        UsageError: They are not as many.
    """
    pictures, classes = idx(images, 3), idx(labels, 1)
    if len(pictures) != len(classes):
        raise UsageError(
            f"{str(images)!r} holds {len(pictures)} pictures, {str(labels)!r} {len(classes)} labels."
        )

    def read(first: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(first, first + size)
        return torch.from_numpy(pictures[rows, None].copy()), torch.from_numpy(classes[rows].astype(np.int64))

    return read, len(classes)
