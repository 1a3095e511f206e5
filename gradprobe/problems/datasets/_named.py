"""Public data sets by name: a local copy in the formats that people have, else through Hugging Face datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.optional import needs
from gradprobe.problems.data import Data
from gradprobe.problems.encode import from_bytes, normalized
from gradprobe.problems.hub import download_command
from gradprobe.problems.lazy import LazyData

VARIABLE, DEFAULT = "GRADPROBE_DATA", "data"
Norm = tuple[Sequence[float], Sequence[float]] | None
"""Mean and standard deviation of each channel, to normalise by; None: not."""

Bytes = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]
"""``(first, size) -> (bytes [size, C, H, W], targets [size])``."""


@dataclass(frozen=True)
class Public:
    """A public data set.

    Attributes:
        name: Its name, and that of its folder in the data folder.
        hub: Its name on the Hugging Face hub.
        splits: What its splits are called there.
        original: What else may be downloaded, into which folder, for messages.
        columns: ``input`` and ``target``, where the hub's are not found by themselves.
        folders: Other names of its folder that people have.
    """

    name: str
    hub: str
    splits: tuple[str, ...] = ("train", "test")
    original: str = ""
    columns: Mapping[str, str] | None = None
    folders: tuple[str, ...] = ()

    def check_split(self, split: str) -> None:
        """Refuse a split that there is not.

        Raises:
            UsageError: There is not.
        """
        one_of("split", split, self.splits)

    def places(self) -> list[Path]:
        """Folders that exist and may hold a copy."""
        tail = self.hub.rpartition("/")[2]
        names = dict.fromkeys((self.name, self.name.replace("-", "_"), tail, *self.folders))
        return [p for p in (data_folder() / n for n in names) if p.is_dir()]

    def find(self, *files: str) -> list[Path] | None:
        """The files of a copy in one of the folders (or one level below), all of them; None where there is none."""
        for place in self.places():
            for folder in (place, *sorted(p for p in place.iterdir() if p.is_dir())):
                found = [
                    next((p for n in (f, f"{f}.gz") if (p := folder / n).is_file()), None) for f in files
                ]
                if all(found):
                    return [p for p in found if p is not None]
        return None

    def from_tables(self, split: str, options: Mapping[str, Any]) -> LazyData:
        """A local copy of the hub's tables, else the hub's.

        Raises:
            UsageError: There is neither; says what to download, from where and into which folder.
        """
        try:
            needs("datasets", extra="hf", what=f"data {self.name!r}")
        except UsageError as error:
            raise UsageError(f"{str(error).removesuffix('.')}{self._or()}.") from error
        from gradprobe.problems.sources._tables import read_splits, read_table
        from gradprobe.problems.sources.hf import from_table

        given = {**(self.columns or {}), **{k: v for k, v in options.items() if v is not None}}
        for place in self.places():
            if any(p.suffix in (".parquet", ".arrow") for p in place.rglob("*")):
                where = str(place.resolve())
                table = read_table(where, split)
                return from_table(table, self.name, given, partial(read_splits, where, table))
        try:
            table = read_table(self.hub, split)
        except UsageError as error:
            if "cannot be reached" not in str(error):
                raise
            raise self.absent(error) from error
        return from_table(table, self.name, given, partial(read_splits, self.hub, table))

    def absent(self, error: Exception | None = None) -> UsageError:
        """The error for data that are nowhere: what to download, from where, into which folder."""
        folder = data_folder() / self.name
        command = download_command(self.hub, "dataset", str(folder))
        return UsageError(
            f"data {self.name!r} are not in the folder {str(data_folder())!r} (set {VARIABLE} for another), and the "
            f"Hugging Face hub cannot be reached; with a network run: {command}{self._or()}."
        )

    def _or(self) -> str:
        return f"; or {self.original}" if self.original else ""


def data_folder() -> Path:
    """Where local copies are: the environment variable GRADPROBE_DATA, else ``./data``."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser()


def from_pixels(name: str, read: Bytes, size: int, classes: int, norm: Norm) -> Data:
    """Pictures that are stored as bytes, scaled to [0, 1] when they are read.

    Args:
        name: Name of the data.
        read: Reads rows.
        size: How many there are.
        classes: Number of classes.
        norm: Mean and standard deviation of each channel, to normalise; None: not.
    """

    def scaled(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, targets = read(first, count)
        return from_bytes(pictures), targets

    return with_norm(LazyData(scaled, size, classes=classes, unit=True, name=f"data {name!r}"), norm)


def with_norm(data: LazyData, norm: Norm) -> Data:
    """Pictures, normalised if asked for (a model with its own image processor does that itself, and only once)."""
    if norm is None:
        return data
    before = data.encode

    def encode(raw: Any, targets: torch.Tensor) -> tuple[Any, torch.Tensor]:
        inputs, targets = before(raw, targets)
        return normalized(inputs, *norm), targets

    return data.encoded(encode, unit=False)


def check_flag(normalize: object) -> None:
    """Refuse what is not yes or no.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(normalize, bool):
        raise UsageError(f"normalize must be true or false, not {normalize!r}.")
