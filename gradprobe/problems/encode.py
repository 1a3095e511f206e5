"""Pictures and texts as tensors, for networks that bring no encoding of their own."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError, one_of, whole
from gradprobe.problems.lazy import Encode

VOCABULARY, LENGTH = 10_000, 64


def pixels(pictures: Sequence[Any], size: int | None = None, channels: int | None = None) -> torch.Tensor:
    """PIL pictures as ``[N, C, H, W]`` in [0, 1]; transparency is dropped.

    Args:
        pictures: The pictures.
        size: Height and width to scale them to, bilinearly; needed where theirs differ.
        channels: C, 1 or 3; by default 1 where all of these are grey, else 3.

    Raises:
        UsageError: Their sizes differ and none is given, or there is no such number of channels.
    """
    one_of("channels", channels, (None, 1, 3))
    grey = all(p.mode in ("1", "L", "LA") for p in pictures) if channels is None else channels == 1
    mode = "L" if grey else "RGB"
    same = [p.convert(mode) for p in pictures]
    if size is not None:
        from PIL import Image

        side = whole("size", size)
        same = [p.resize((side, side), Image.Resampling.BILINEAR) for p in same]
    if len({p.size for p in same}) > 1:
        shown = ", ".join(sorted({f"{p.height}x{p.width}" for p in same})[:4])
        raise UsageError(f"the pictures have several sizes ({shown}); scale them with the option size=64.")
    arrays = np.stack([np.asarray(p, dtype=np.uint8) for p in same])
    return from_bytes(
        torch.from_numpy(arrays[:, None] if mode == "L" else arrays.transpose(0, 3, 1, 2).copy())
    )


def from_bytes(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes ``[N, C, H, W]`` scaled to [0, 1]."""
    return pictures.to(torch.float32) / 255


def normalized(pictures: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """``(x - mean) / std`` of each channel."""
    shape = (1, -1, 1, 1)
    return (pictures - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def hashed_words(texts: Sequence[str], vocabulary: int = VOCABULARY, length: int = LENGTH) -> torch.Tensor:
    """Texts as whole numbers ``[N, length]`` without a list of words.

    A word is a run of letters, digits and underscores, in lower case; its number is ``1 + crc32(word) mod
    (vocabulary - 1)``, so different words may share one. 0 fills up what is short; what is long is cut.
    """
    rows = torch.zeros(len(texts), length, dtype=torch.int64)
    for i, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())[:length]
        if words:
            rows[i, : len(words)] = torch.tensor(
                [1 + zlib.crc32(w.encode()) % (vocabulary - 1) for w in words]
            )
    return rows


def picture_encoder(size: int | None = None, channels: int | None = None) -> Encode:
    """An encoding of pictures by :func:`pixels`."""
    return lambda raw, targets: (pixels(raw, size, channels), targets)


def text_encoder(vocabulary: int = VOCABULARY, length: int | None = None) -> Encode:
    """An encoding of texts by :func:`hashed_words`.

    Raises:
        UsageError: A size is no whole number.
    """
    vocabulary, length = whole("vocabulary", vocabulary, 2), whole("max_length", length or LENGTH)
    return lambda raw, targets: (hashed_words(raw, vocabulary, length), targets)
