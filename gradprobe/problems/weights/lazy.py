"""Tensors of a safetensors file whose shapes are known before they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.pickles import damaged

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is still in its file.

    Attributes:
        name: Its name in the file.
        shape: Its shape.
        dtype: Its type.
        file: The open safetensors file; it stays open as long as a tensor of it is held.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    file: Any = field(repr=False, compare=False)

    def read(self) -> torch.Tensor:
        """The tensor itself."""
        return self.file.get_tensor(self.name)


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Name -> tensor, none of which has been read yet.

    Raises:
        UsageError: The file is damaged, or has a type that this torch does not know.
    """
    from safetensors import safe_open

    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # it is no mapping
    except Exception as error:
        raise damaged(path, error) from error
    found = {}
    for name, part in slices.items():
        if part.get_dtype() not in DTYPES:
            raise UsageError(
                f"{path} holds {name!r} as {part.get_dtype()}, a packed type that no module takes; save the weights "
                "as float32 or bfloat16."
            )
        found[name] = LazyTensor(name, torch.Size(part.get_shape()), DTYPES[part.get_dtype()], file)
    return found
