"""Runs of one problem on several batches: a folder of runs, and one Dataset of all of them.

The folder holds ``batches.json`` and, for each batch, an ordinary run (``batch-0``, ``batch-1``, ...). The Dataset
has the variables and coordinates of a run with a further dimension ``batch``, and

==================  ================================  =======================================================
variable            dims                              meaning
==================  ================================  =======================================================
batch_product       parameter, batch, other_batch     <g_b, g_b'>, g_b the backprop gradient of batch b
sqnorm_of_batch     batch                             |g_b|^2 of the whole model
loss_of_batch       batch                             loss of the batch without noise
==================  ================================  =======================================================

``attrs`` are those of batch 0, without those that these variables are in place of (``total_reference_sqnorm`` and
``clean_loss``); ``attrs["batches"]`` says how many there are, warnings and failures are those of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.core.spec import canonical_json
from gradprobe.store.assemble import attribute
from gradprobe.store.files import cannot_write, write_atomically
from gradprobe.store.info import RUN_FILE
from gradprobe.store.looks import Looks, joined_looks
from gradprobe.store.schema import Array

BATCHES_FILE = "batches.json"
VERSION = 1

OF_BATCH = {"total_reference_sqnorm": "sqnorm_of_batch", "clean_loss": "loss_of_batch"}
"""Attributes of a run -> variables over batches."""


@dataclass(frozen=True)
class Batches:
    """What ``batches.json`` holds.

    Attributes:
        identity: What all batches share: fingerprints of model and loss, root seed.
        batches: Fingerprint of each batch.
        products: Parameter -> <g_b, g_b'>, one row for each batch.
    """

    identity: dict[str, Any]
    batches: list[str]
    products: dict[str, list[list[float]]]

    def joined(self, old: Batches | None, where: Path | None) -> Batches:
        """These batches, or those of an older request that had more of them.

        Raises:
            UsageError: The older ones are of another problem, or others.
        """
        if old is None:
            return self
        different = [k for k, v in self.identity.items() if old.identity.get(k) != v]
        common = min(len(self.batches), len(old.batches))
        if self.batches[:common] != old.batches[:common]:
            different.append("batches")
        if different:
            raise UsageError(
                f"{where} holds batches of a run with other {' and '.join(different)}; choose another out= (or the "
                "settings of that run)."
            )
        names = dict.fromkeys([*old.products, *self.products])
        tables = {n: max(self.products.get(n, []), old.products.get(n, []), key=len) for n in names}
        return Batches(self.identity, max(self.batches, old.batches, key=len), tables)


def folder_of(path: Path, batch: int) -> Path:
    """The run of one batch."""
    return path / f"batch-{batch}"


def read_batches(path: Path) -> Batches | None:
    """What a folder of batches holds; None if it is none.

    Raises:
        UsageError: It is damaged, or a newer version wrote it.
    """
    file = path / BATCHES_FILE
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data.pop("version") > VERSION:
            raise UsageError(f"{file} was written by a newer gradprobe; update this one.")
        return _checked(Batches(**data))
    except UsageError:
        raise
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{file} is damaged ({error!r}); delete it and run the probe again.") from error


def _checked(found: Batches) -> Batches:
    """What a file says, if it can be so.

    Raises:
        ValueError: It cannot.
        TypeError: Likewise.
    """
    if not isinstance(found.identity, dict) or not isinstance(found.batches, list):
        raise TypeError("identity or batches")
    if not found.batches or not all(isinstance(mark, str) for mark in found.batches):
        raise ValueError("batches")
    for table in found.products.values():
        many = len(table)
        if np.asarray(table, dtype=np.float64).shape != (many, many) or many > len(found.batches):
            raise ValueError("products")
    return found


def write_batches(path: Path, batches: Batches) -> None:
    """Write ``batches.json``, whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    content = {"version": VERSION, **asdict(batches)}
    write_atomically(path / BATCHES_FILE, json.dumps(content).encode())


def check_folder(path: Path) -> None:
    """Refuse a folder that batches cannot go to, before anything is computed.

    Raises:
        UsageError: It holds a single run, or something else.
    """
    if (path / RUN_FILE).exists():
        raise UsageError(f"{path} holds the run of a single batch; choose another out= for batches=.")
    others = path.exists() and (
        not path.is_dir() or any(not f.name.startswith(("batch-", ".tmp-")) for f in path.iterdir())
    )
    if others and not (path / BATCHES_FILE).exists():
        raise UsageError(f"{path} exists and is no folder of batches; choose another out=.")


def begun(path: Path) -> list[int]:
    """Which batches of a folder have a run."""
    found = read_batches(path)
    if found is None:
        raise UsageError(f"{path} holds no batches.")
    return [b for b in range(len(found.batches)) if (folder_of(path, b) / RUN_FILE).is_file()]


def join_batches(
    runs: Mapping[int, xr.Dataset], products: Mapping[str, Sequence[Sequence[float]]]
) -> xr.Dataset:
    """One Dataset of the runs of several batches.

    Where a run lacks a seed, an estimator or copies that the first has (it is not done yet), it is "missing" and NaN.

    Args:
        runs: Batch -> its results; the first has all estimators, layers, seeds and copies.
        products: As of :class:`Batches`; NaN where there is no entry.
    """
    numbers = list(runs)
    first = runs[numbers[0]]
    # coordinates of the first run are everybody's: those of the others may be NaN where they lack a label
    alike = [
        run.reset_coords(drop=True).reindex_like(first, fill_value={"status": "missing", "booked_on": ""})
        for run in runs.values()
    ]
    ds = xr.concat(alike, dim=xr.Variable("batch", numbers), join="exact")
    ds = ds.assign_coords({name: c for name, c in first.coords.items() if name not in first.dims})
    names = [str(p) for p in first["parameter"].values]
    ds["batch_product"] = (("parameter", "batch", "other_batch"), _table(products, names, numbers))
    ds = ds.assign_coords(other_batch=numbers)
    for name, own in OF_BATCH.items():
        if any(name in run.attrs for run in runs.values()):
            ds[own] = ("batch", [float(run.attrs.get(name, np.nan)) for run in runs.values()])
    ds.attrs = {k: v for k, v in first.attrs.items() if k not in OF_BATCH}
    ds.attrs |= _said(list(runs.values())) | {"batches": len(numbers)}
    if "path" in ds.attrs:
        ds.attrs["path"] = str(Path(ds.attrs["path"]).parent)
    return ds


def _table(products: Mapping[str, Any], names: Sequence[str], numbers: Sequence[int]) -> Array:
    many = max([max(numbers) + 1, *(len(rows) for rows in products.values())])
    whole = np.full((len(names), many, many), np.nan)
    for at, name in enumerate(names):
        known = np.asarray(products.get(name, np.empty((0, 0))), dtype=np.float64)
        whole[at, : len(known), : len(known)] = known
    return whole[:, numbers][:, :, numbers]


def _said(runs: Sequence[xr.Dataset]) -> dict[str, Any]:
    """Warnings, what doctor saw, notes and failures of all batches, each once."""
    warnings: dict[str, Any] = {}
    looks: Looks = {}
    notes: dict[str, dict[str, str]] = {}
    for run in runs:
        looks = joined_looks(looks, attribute(run, "doctor_table"))
        for warned in attribute(run, "doctor") or []:
            warnings.setdefault(canonical_json([warned["check"], warned["layer"]]), warned)
        for label, reasons in (attribute(run, "notes") or {}).items():
            notes[label] = reasons | notes.get(label, {})
    failed = {label for run in runs for label in attribute(run, "failed") or []}
    found = {"notes": notes, "failed": [e for e in runs[0]["estimator"].values if e in failed]}
    texts = {name: canonical_json(value) for name, value in found.items()}
    texts |= {"doctor": canonical_json(list(warnings.values()))} if "doctor" in runs[0].attrs else {}
    texts |= {"doctor_table": canonical_json(looks)} if looks else {}
    stopped = max((run.attrs.get("stopped", 0) for run in runs), default=0)
    return texts | ({"stopped": stopped} if stopped else {})
