"""AG News: short news articles of four topics."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError, whole
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._named import Public
from gradprobe.problems.encode import LENGTH, VOCABULARY, text_encoder
from gradprobe.problems.lazy import LazyData

AG_NEWS = Public(
    "ag-news",
    "fancyzhx/ag_news",
    original="put train.csv and test.csv (class, title, description) there",
    folders=("ag_news_csv", "AG_NEWS"),
)


@register(
    "ag-news",
    summary="AG News: 127,600 short articles, four topics (Zhang 2015); to be downloaded",
    offers=("vocabulary", "length", "padding", "classes"),
    download=True,
)
def ag_news(split: str = "train", vocabulary: int = VOCABULARY, length: int | None = None) -> Data:
    """One split of AG News, title and description as one text, in the order of the files.

    For our own networks a text is ``length`` whole numbers, by hashing lower-cased words into ``vocabulary``
    numbers (:func:`~gradprobe.problems.encode.hashed_words`); a model of transformers uses its own tokenizer.
    Looked for in the data folder (GRADPROBE_DATA, else ``./data``): ``train.csv`` and ``test.csv`` of the original,
    or the hub's parquet files, in ``ag-news``; then on the Hugging Face hub.

    Args:
        split: ``"train"`` (120,000) or ``"test"`` (7,600).
        vocabulary: How many numbers words are hashed to; 0 fills up.
        length: Words of a text that are kept, 64 by default; for a tokenizer its tokens, by default as many as the
            longest text of the batch has.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    AG_NEWS.check_split(split)
    whole("vocabulary", vocabulary, 2)
    files = AG_NEWS.find(f"{split}.csv")
    if files is None:
        return AG_NEWS.from_tables(split, {"vocabulary": vocabulary, "max_length": length})
    texts, labels = _read(files[0])

    def read(first: int, size: int) -> tuple[Any, torch.Tensor]:
        return texts[first : first + size], torch.tensor(labels[first : first + size])

    facts = {"vocabulary": vocabulary, "length": length or LENGTH, "padding": 0}
    given: dict[str, Any] = {"kind": "text", "classes": 4, "facts": facts, "name": "data 'ag-news'"}
    return LazyData(read, len(texts), encode=text_encoder(vocabulary, length), max_length=length, **given)


def _read(path: Path) -> tuple[list[str], list[int]]:
    """Texts and classes from 0; in the file classes count from 1, and there is no line of names.

    Raises:
        UsageError: A line is something else.
    """
    texts, labels = [], []
    with path.open(encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.reader(stream), 1):
            if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
                raise UsageError(
                    f"line {number} of {str(path)!r} is not class (1 to 4), title, description; download it again."
                )
            texts.append(f"{row[1]} {row[2]}")
            labels.append(int(row[0]) - 1)
    if not texts:
        raise UsageError(f"{str(path)!r} is empty; download it again.")
    return texts, labels
