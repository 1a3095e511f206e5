"""A batch in a file: ``.safetensors`` or ``.npz`` with tensors ``inputs`` and ``targets``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.build import check_options
from gradprobe.problems.data import Data
from gradprobe.problems.objects import one_line
from gradprobe.problems.sources import register

TARGETS, INPUTS = ("targets", "target", "labels"), "inputs"
READ = (".safetensors", ".npz")
SAVE = "safetensors.torch.save_file({'inputs': inputs, 'targets': targets}, 'batch.safetensors')"


@register(
    "saved",
    summary="FILE.safetensors or FILE.npz: a saved batch of inputs (or input_ids, ...) and targets",
    written="a saved batch (.safetensors, .npz)",
    files=(
        ".safetensors",
        ".npz",
        ".pt",
        ".pth",
        ".bin",
        ".pkl",
        ".pickle",
        ".npy",
    ),  # most are refused, and why
)
def saved(name: str, split: str, options: Mapping[str, Any]) -> Data:
    """A batch that was saved; the file has one split, whatever it is called.

    Args:
        name: The file. Its tensors are ``targets`` and either ``inputs`` or several that are given to the model
            by name (``input_ids``, ``attention_mask``, ...).
        split: Not used.
        options: ``classes``: number of classes, where a network has to know it.

    Raises:
        UsageError: There is no such file, or it holds something else.
    """
    check_options(f"data {name!r}", options, ["classes"])
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"data: there is no file {name!r}; save a batch with {SAVE}.")
    given = _read(path)
    targets = [n for n in TARGETS if n in given]
    inputs = {n: t for n, t in given.items() if n not in TARGETS}
    if len(targets) != 1 or not inputs:
        raise UsageError(
            f"data: {name!r} holds {', '.join(sorted(given)) or 'nothing'}; it must hold targets, and inputs (or "
            "several tensors by the names of the model's arguments, such as input_ids)."
        )
    if INPUTS in inputs and len(inputs) > 1:
        extra = ", ".join(sorted(set(inputs) - {INPUTS}))
        raise UsageError(
            f"data: {name!r} holds inputs and also {extra}; keep inputs, or the named ones, alone."
        )
    _check_rows(name, given[targets[0]], inputs)
    found = inputs[INPUTS] if INPUTS in inputs else inputs
    return Data(found, given[targets[0]], options.get("classes"))


def _read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file; nothing in it is run."""
    if path.suffix not in READ:
        raise UsageError(f"data: {str(path)!r} is no saved batch that gradprobe reads; save one with {SAVE}.")
    try:
        if path.suffix == ".npz":
            if not zipfile.is_zipfile(path):
                raise ValueError("it is no zip archive, as .npz files are")
            with np.load(path, allow_pickle=False) as arrays:
                return {n: torch.from_numpy(np.ascontiguousarray(arrays[n])) for n in arrays.files}
        from safetensors.torch import load_file

        return load_file(path)
    except Exception as error:
        objects = "object array" in str(error).lower() or "object_" in str(error)
        why = "it holds arrays of Python objects" if objects else one_line(error)
        raise UsageError(
            f"data: {str(path)!r} cannot be read as a saved batch ({why}); save one with {SAVE}."
        ) from error


def _check_rows(name: str, targets: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> None:
    for what, t in {"targets": targets, **inputs}.items():
        if not t.ndim or not len(t):
            raise UsageError(
                f"data: {what} in {name!r} has no rows; every tensor must have one row for each sample."
            )
        if len(t) != len(targets):
            raise UsageError(
                f"data: {name!r} holds {len(targets)} targets but {len(t)} rows of {what}; they must be as many."
            )
