"""A unit as one ``.npz`` file, and back."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gradprobe.core.errors import UsageError
from gradprobe.store.schema import SCHEMA_VERSION, Unit, UnitKey

ARRAYS = tuple(f.name for f in fields(Unit) if f.type == "Array")
_TUPLES = ("readouts", "parameters", "references")
_SCALARS = ("block", "seconds", "peak_bytes", "status", "note")
_LATER = ("kept_bytes", "plain_bytes")
"""Scalars that earlier versions did not write."""

_EXTRA = "extra."

DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, MemoryError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
"""What reading a file that is cut off or scrambled can raise."""


def packed(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays and a JSON-able dictionary as the content of one ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)
    return buffer.getvalue()


def unit_meta(unit: Unit) -> dict[str, Any]:
    """Everything of a unit but its arrays."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": [unit.key.source, unit.key.layer, unit.key.seed],
        **{name: list(getattr(unit, name)) for name in _TUPLES},
        **{name: getattr(unit, name) for name in (*_SCALARS, *_LATER)},
        "extras": list(unit.extras),
    }


def unit_arrays(unit: Unit) -> dict[str, np.ndarray]:
    """The arrays of a unit by name."""
    return {name: getattr(unit, name) for name in ARRAYS} | {_EXTRA + k: v for k, v in unit.extras.items()}


def unit_of(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Unit:
    """Inverse of :func:`unit_meta` and :func:`unit_arrays`; further entries are ignored."""
    known: dict[str, Any] = {name: tuple(meta[name]) for name in _TUPLES}
    known |= {name: meta[name] for name in _SCALARS} | {name: arrays[name] for name in ARRAYS}
    known |= {name: meta[name] for name in _LATER if name in meta}
    known["extras"] = {name: arrays[_EXTRA + name] for name in meta.get("extras", ())}
    return Unit(key=UnitKey(*meta["key"]), **known)


def read_unit(file: Path) -> Unit:
    """Read the file of a unit.

    Raises:
        UsageError: It is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            return unit_of(json.loads(str(data["meta"])), data)
    except DAMAGED as error:
        raise UsageError(f"{file} is damaged ({error!r}); delete it and run the probe again.") from error
