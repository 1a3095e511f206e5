"""A figure on disk: picture, print version, and the numbers that it shows."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradprobe.core.provenance import environment
from gradprobe.plots._style import PaperFigure
from gradprobe.store.assemble import attribute
from gradprobe.store.files import cannot_write, write_atomically

_NESTED = ("identity", "configuration", "environment", "refused", "unused_layers")
_LEFT_OUT = ("layers", "path", "doctor_table")  # long, and where it happened to lie
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def finish(figure: PaperFigure, record: Mapping[str, Any], stem: str | Path | None) -> PaperFigure:
    """Note what made a figure, and save it if that was asked for.

    Args:
        figure: The figure.
        record: What made it; kept as ``gradprobe_record``, and as the JSON file.
        stem: As for :func:`save`; None: it is not saved.

    Returns:
        The figure.
    """
    figure.gradprobe_record = plain(record)
    if stem is not None:
        save(figure, stem, figure.gradprobe_record)
    return figure


def save(figure: Figure, stem: str | Path, made_from: Mapping[str, Any]) -> list[Path]:
    """Write ``stem.png`` (300 dpi), ``stem.pdf`` and ``stem.json``.

    Each file is written under another name and then renamed, so that it is whole or not there. The same
    figure gives the same bytes again: none of them holds the time.

    Args:
        figure: The figure.
        stem: Path without ending (one of the three endings is taken off); missing folders are made.
        made_from: What made it, for the JSON file; NaN becomes null.

    Returns:
        The three paths.
    """
    given = Path(stem)
    if given.suffix in (".png", ".pdf", ".json"):
        given = given.with_suffix("")
    contents = {kind: _rendered(figure, kind) for kind in _METADATA}
    contents["json"] = json.dumps(plain(made_from), allow_nan=False, ensure_ascii=False).encode()
    try:
        given.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(given, error) from error
    files = [given.parent / f"{given.name}.{ending}" for ending in contents]
    for file, content in zip(files, contents.values(), strict=True):
        write_atomically(file, content)
    return files


def _rendered(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=300, metadata=_METADATA[kind])
    return stream.getvalue()


def made_from(ds: xr.Dataset) -> dict[str, Any]:
    """Where a figure's numbers come from: identity, configuration and versions of the run and of the figure.

    Args:
        ds: Results.
    """
    run = {k: attribute(ds, k) if k in _NESTED else v for k, v in ds.attrs.items() if k not in _LEFT_OUT}
    versions = {k: v for k, v in environment().items() if k != "created"}
    return {"run": run, "versions": versions | {"matplotlib": mpl.__version__}}


def plain(value: Any) -> Any:
    """Copy of a nested value that JSON can hold: arrays become lists, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
