"""What the runs of a comparison are called: the step in a checkpoint's name, its name, or the run's folder."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError, described
from gradprobe.store.assemble import attribute

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def labels_of(runs: Sequence[xr.Dataset], places: Sequence[str]) -> list[Any]:
    """Labels by what the runs know.

    Checkpoints' names, else the runs' folders or files: the number in them if they differ in one number alone
    (``epoch-3.pt``, ``epoch-10.pt``: 3 and 10), else the shortest ends of the paths that differ; made unique.

    Args:
        runs: Results.
        places: Where each was read from; "" for results in memory.
    """
    known = [_checkpoint(run) for run in runs]
    kept = [place or str(run.attrs.get("path", "")) for run, place in zip(runs, places, strict=True)]
    for names in (known, kept):
        if all(names) and len(set(names)) == len(names):
            ends = _ends(names)
            return _numbers(names) or _numbers(ends) or ends
    mixed = [PurePath(a or b).stem or f"run {i}" for i, (a, b) in enumerate(zip(known, kept, strict=True), 1)]
    return _unique(mixed)


def given_labels(labels: Any, count: int) -> list[Any]:
    """Labels as they were asked for.

    Raises:
        UsageError: They are not one name or number for each run, or two are alike.
    """
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__iter__"):
        raise UsageError(f"labels must be a list of {count} names or numbers, not {described(labels)}.")
    found = [x.item() if isinstance(x, np.generic) else x for x in labels]
    if len(found) != count:
        raise UsageError(f"there are {count} runs and {len(found)} labels; give one label for each run.")
    if all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in found):
        pass
    elif not all(isinstance(x, str) for x in found):
        raise UsageError("labels must be names, or finite numbers such as epochs or steps, not both.")
    twice = next((x for i, x in enumerate(found) if x in found[:i]), None)
    if twice is not None:
        raise UsageError(f"label {twice!r} is there twice; give each run a label of its own.")
    return found


def read_labels(text: str) -> list[Any]:
    """Labels from a line: numbers if all are numbers.

    Args:
        text: Comma-separated.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        return [_number(word) for word in words]
    except ValueError:
        return list(words)


def _checkpoint(run: xr.Dataset) -> str:
    """What the run knows of its checkpoint: as it was asked for, or the name of its file."""
    asked = (attribute(run, "configuration") or {}).get("checkpoint")
    return str(asked or run.attrs.get("checkpoint") or "")


def _numbers(names: Sequence[str]) -> list[Any]:
    """The numbers of names that differ in one number alone; none if they differ in something else."""
    stems = [str(PurePath(name).with_suffix("")) for name in names]
    if len(set(stems)) < len(stems):
        stems = list(names)
    around = {tuple(_NUMBER.split(stem)) for stem in stems}
    inside = [_NUMBER.findall(stem) for stem in stems]
    if len(around) > 1 or not inside[0]:
        return []
    varying = [column for column in zip(*inside, strict=True) if len(set(column)) > 1]
    values = [_number(x) for x in varying[0]] if len(varying) == 1 else []
    return values if len(set(values)) == len(names) else []


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _ends(names: Sequence[str]) -> list[str]:
    """The shortest ends of different paths that differ too, without a suffix that all share."""
    paths = [PurePath(name) for name in names]
    if len({path.suffix for path in paths}) == 1:
        paths = [path.with_suffix("") for path in paths]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        ends = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(ends)) == len(ends):
            return ends
    return _unique([str(path) for path in paths])


def _unique(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        way, count = name, 1
        while way in found:
            count += 1
            way = f"{name} ({count})"
        found.append(way)
    return found
