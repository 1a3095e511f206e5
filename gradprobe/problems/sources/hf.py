"""``hf:NAME_OR_PATH``: data through Hugging Face ``datasets``, from the hub or from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.optional import needs
from gradprobe.problems.build import check_options
from gradprobe.problems.data import Data
from gradprobe.problems.encode import LENGTH, VOCABULARY, Encode, picture_encoder, text_encoder
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.objects import one_line
from gradprobe.problems.sources import register
from gradprobe.problems.sources._columns import input_column, target_column
from gradprobe.problems.sources._tables import read_table

OPTIONS = ("input", "target", "config", "size", "channels", "vocabulary", "max_length")
NO_LABEL = -100


@register(
    "hf", summary="hf:NAME, hf:FOLDER or hf:FILE: data through Hugging Face datasets (parquet, csv, pictures)"
)
def hf(name: str, split: str, options: Mapping[str, Any]) -> Data:
    """A split of a data set of Hugging Face; only the rows of a batch are decoded.

    Pictures are scaled to [0, 1]; texts become numbers of words by hashing
    (:func:`~gradprobe.problems.encode.hashed_words`). A model of transformers uses its own image processor or
    tokenizer instead.

    Args:
        name: A name on the hub, a folder (of ``save_to_disk``, of parquet, csv or json files, of pictures in one
            folder for each class) or such a file.
        split: Name of the split.
        options: ``input``, ``target``: columns, where they are not found by type and name; ``config``; ``size``:
            height and width that pictures are scaled to; ``channels``: 1 or 3; ``vocabulary``: numbers that
            words are hashed to; ``max_length``: tokens that texts are padded or cut to.

    Raises:
        UsageError: There are no such data, split or columns.
    """
    check_options(f"data 'hf:{name}'", options, OPTIONS)
    needs("datasets", extra="hf", what=f"data 'hf:{name}'")
    table = read_table(name, split, options.get("config"))
    return from_table(table, f"hf:{name}", options)


def from_table(table: Any, name: str, options: Mapping[str, Any]) -> LazyData:
    """Data from a table of ``datasets``.

    Args:
        table: The table.
        name: What to call it in messages.
        options: As of :func:`hf`.

    Raises:
        UsageError: The columns are not found, or hold what cannot be a batch.
    """
    label = f"data {name!r}"
    target = target_column(table.features, options.get("target"), label)
    column = input_column(table.features, options.get("input"), target, label)
    if not len(table):
        raise UsageError(f"{label} have no rows.")
    kind = _kind(table, column)
    classes, number = _classes(table, target, label, kind)

    def read(first: int, size: int) -> tuple[Any, Any]:
        try:
            rows = table[first : first + size]
        except Exception as error:
            raise UsageError(f"{label} cannot be decoded: {one_line(error)}.") from error
        raw = rows[column]
        if any(value is None for value in raw):
            raise UsageError(
                f"column {column!r} of {label} has an empty cell in this batch; choose another first=."
            )
        values = [NO_LABEL] * len(raw) if target is None else [number(v) for v in rows[target]]
        return (_numbers(raw, column, label) if kind == "tensor" else raw), _targets(
            values, kind, target, label
        )

    length = None if options.get("max_length") is None else whole("max_length", options["max_length"])
    facts, encode = _encoding(kind, options, length)
    given: dict[str, Any] = {
        "kind": kind,
        "encode": encode,
        "classes": classes,
        "facts": facts,
        "max_length": length,
    }
    return LazyData(read, len(table), **given, labelled=target is not None, name=label)


def _encoding(kind: str, options: Mapping[str, Any], length: int | None) -> tuple[dict[str, Any], Encode]:
    """What a network must know of the encoding, and the encoding."""
    if kind == "text":
        vocabulary = options.get("vocabulary", VOCABULARY)
        facts = {"vocabulary": vocabulary, "length": length or LENGTH, "padding": 0}
        return facts, text_encoder(vocabulary, length)
    if kind == "image":
        return {}, picture_encoder(options.get("size"), options.get("channels"))
    return {}, lambda raw, targets: (raw, targets)


def _kind(table: Any, column: str) -> str:
    """What a column holds: pictures by type, texts, lists of words, or numbers."""
    feature = table.features[column]
    if type(feature).__name__ == "Image":
        return "image"
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return "text"
    inner = getattr(getattr(feature, "feature", None), "dtype", None)
    return "words" if inner in ("string", "large_string") else "tensor"


def _classes(table: Any, target: str | None, label: str, kind: str) -> tuple[int | None, Any]:
    """Number of classes, and what turns a cell into a target."""
    if target is None:
        return None, lambda v: v
    feature = table.features[target]
    feature = getattr(feature, "feature", feature) if kind == "words" else feature
    if type(feature).__name__ == "ClassLabel":
        return feature.num_classes, lambda v: v
    dtype = str(getattr(feature, "dtype", ""))
    if dtype in ("string", "large_string", "bool") and kind != "words":
        names = sorted(v for v in table.unique(target) if v is not None)
        place = {v: i for i, v in enumerate(names)}
        return len(names), lambda v: place.get(v)
    if dtype.startswith(("int", "uint")) and kind != "words":
        values = [v for v in table.unique(target) if v is not None]
        if min(values, default=0) < 0:
            raise UsageError(
                f"column {target!r} of {label} has the class {min(values)}; classes count from 0."
            )
        return max(values, default=0) + 1, lambda v: v
    return None, lambda v: v


def _targets(values: list[Any], kind: str, target: str | None, label: str) -> Any:
    """Targets as a tensor; labels of words stay lists, because tokens are not known yet."""
    if any(v is None for v in values):
        raise UsageError(
            f"column {target!r} of {label} has an empty cell in this batch; choose another first=."
        )
    if kind == "words" and target is not None:
        return values
    return _numbers(values, target or "", label)


def _numbers(values: list[Any], column: str, label: str) -> torch.Tensor:
    try:
        found = torch.tensor(values)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"column {column!r} of {label} holds what is no number or has several lengths ({one_line(error)}); "
            "choose other columns with input=COLUMN and target=COLUMN."
        ) from error
    return found.to(torch.float32) if found.dtype == torch.float64 else found
