"""``hf:NAME_OR_PATH``: data through Hugging Face ``datasets``, from the hub or from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.optional import needs
from gradprobe.problems.build import check_options
from gradprobe.problems.data import Data
from gradprobe.problems.encode import LENGTH, VOCABULARY, Encode, picture_encoder, text_encoder
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.losses import IGNORED
from gradprobe.problems.objects import one_line
from gradprobe.problems.sources import register
from gradprobe.problems.sources._classes import classes_of
from gradprobe.problems.sources._columns import input_column, target_column
from gradprobe.problems.sources._tables import read_splits, read_table

OPTIONS = ("input", "target", "config", "size", "channels", "vocabulary", "max_length", "classes")


@register(
    "hf",
    summary="hf:NAME, hf:FOLDER or hf:FILE: data through Hugging Face datasets (parquet, csv, pictures)",
    after_colon=(".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow", ""),
    through="Hugging Face's datasets",
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
            words are hashed to; ``max_length``: tokens that texts are padded or cut to; ``classes``: the labels
            in the order of their numbers, as a list or with commas between them, or how many classes there are.
            Without it, labels that are words are numbered in the order of the alphabet over all splits that are
            at hand, so for a single file of several give ``classes``; false is 0 and true 1.

    Raises:
        UsageError: There are no such data, split or columns.
    """
    check_options(f"data 'hf:{name}'", options, OPTIONS)
    needs("datasets", extra="hf", what=f"data 'hf:{name}'")
    table = read_table(name, split, options.get("config"))
    return from_table(table, f"hf:{name}", options, partial(read_splits, name, table, options.get("config")))


def from_table(
    table: Any, name: str, options: Mapping[str, Any], splits: Callable[[], Sequence[Any]] | None = None
) -> LazyData:
    """Data from a table of ``datasets``.

    Args:
        table: The table.
        name: What to call it in messages.
        options: As of :func:`hf`.
        splits: Gives all splits, in which classes are counted; called only where classes have no names. By default
            the table is all.

    Raises:
        UsageError: The columns are not found, or hold what cannot be a batch.
    """
    label = f"data {name!r}"
    table = _with_pictures(table)
    target = target_column(table.features, options.get("target"), label)
    column = input_column(table.features, options.get("input"), target, label)
    if not len(table):
        raise UsageError(f"{label} have no rows.")
    kind = _kind(table, column)
    classes, number = classes_of(
        table, target, kind, label, options.get("classes"), splits or (lambda: [table])
    )

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
        values = [IGNORED] * len(raw) if target is None else [number(v) for v in rows[target]]
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
        "unit": kind == "image",
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


def _with_pictures(table: Any) -> Any:
    """Columns of encoded pictures that are not declared as such, as pandas and others write them, as pictures."""
    from datasets import Image

    for name, feature in list(table.features.items()):
        if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
            table = table.cast_column(name, Image())
    return table


def _kind(table: Any, column: str) -> str:
    """What a column holds: pictures by type, texts, lists of words, or numbers."""
    feature = table.features[column]
    if type(feature).__name__ == "Image":
        return "image"
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return "text"
    inner = getattr(getattr(feature, "feature", None), "dtype", None)
    return "words" if inner in ("string", "large_string") else "tensor"


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
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"column {column!r} of {label} holds what is no number or has several lengths ({one_line(error)}); "
            "choose other columns with input=COLUMN and target=COLUMN."
        ) from error
    return found.to(torch.float32) if found.dtype == torch.float64 else found
