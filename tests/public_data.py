"""Small files in the exact formats of public data sets, made from random numbers."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(7))


def write_idx(path: Path, values: np.ndarray) -> None:
    """Magic number (0, 0, type, axes), big-endian sizes, bytes; packed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(folder: Path, start: str, size: int, ending: str = "") -> tuple[np.ndarray, np.ndarray]:
    pictures = rng().integers(0, 256, (size, 28, 28), dtype=np.uint8)
    labels = (np.arange(size) % 10).astype(np.uint8)
    write_idx(folder / f"{start}-images-idx3-ubyte{ending}", pictures)
    write_idx(folder / f"{start}-labels-idx1-ubyte{ending}", labels)
    return pictures, labels


def write_cifar(file: Path, size: int, labels: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Records of 1 (class) or 2 (coarse, fine) bytes and three planes of 32x32."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = rng().integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
    fine = (np.arange(size) + offset).astype(np.uint8)
    with file.open("wb") as stream:
        for picture, label in zip(pictures, fine, strict=True):
            stream.write(bytes([0] * (labels - 1) + [int(label)]) + picture.tobytes())
    return pictures, fine


CORA = """31336 0 1 1 Neural_Networks
1061127 1 0 0 Rule_Learning
1106406 0 0 1 Reinforcement_Learning
13195 0 0 0 Neural_Networks
"""
CITES = "31336 1061127\n31336\t13195\n13195 31336\n35 31336\n1106406 1106406\n"


def write_cora(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cora.content").write_text(CORA.replace(" ", "\t"))
    (folder / "cora.cites").write_text(CITES.replace(" ", "\t"))
