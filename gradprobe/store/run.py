"""A run: its identity in ``run.json`` and one immutable file for each finished unit; or all of it in memory.

Folders of a run directory: ``units`` (finished units), ``partial`` (states of units that are not finished, to go on
from), ``sums`` (final states: scratch for products of seeds, or kept to go on to more copies) and ``products``
(products of seeds). Every file is written whole or not at all. What is not in ``units`` can be deleted at any time:
it is computed anew or, for products, NaN.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from gradprobe.core.errors import UsageError, described
from gradprobe.core.spec import digest
from gradprobe.store.assemble import assemble
from gradprobe.store.batches import BATCHES_FILE, begun, folder_of, join_batches, read_batches
from gradprobe.store.export import read_export
from gradprobe.store.files import (
    TEMPORARY,
    cannot_write,
    forget_abandoned,
    locked,
    names_in,
    write_atomically,
)
from gradprobe.store.info import RUN_FILE, RunInfo, read_info, same_numbers
from gradprobe.store.kept import Kept
from gradprobe.store.saver import Saver
from gradprobe.store.schema import KEEP, KEPT, TOO_LARGE, Unit, UnitKey
from gradprobe.store.state import Wanted
from gradprobe.store.unitfile import packed, read_unit, unit_arrays, unit_meta


class RunStore:
    """Units of a run, in a directory or in memory.

    Args:
        path: Directory; None keeps everything in memory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.info: RunInfo | None = None
        self._units: list[Unit] = []
        self._by_key: dict[UnitKey, list[Unit]] | None = None
        self.kept = Kept(self.path)

    def begin(self, info: RunInfo) -> RunInfo:
        """Create the run, or join the one that is there.

        Args:
            info: What is asked for.

        Returns:
            What the run holds then: the older request and this one.

        Raises:
            UsageError: The directory holds something else, or a run of another identity, or cannot be written.
        """
        if self.path is None:
            self.info = info
            return info
        old = self._existing()
        if old is not None:
            self._joined(old, info)  # refusals come before anything is made
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                self.info = self._joined(self._existing(), info)
                write_atomically(self.path / RUN_FILE, json.dumps(self.info.to_dict(), indent=1).encode())
            self._units_folder().mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self.info

    def _joined(self, old: RunInfo | None, info: RunInfo) -> RunInfo:
        if old is not None:
            different = [k for k, v in info.identity.items() if old.identity.get(k) != v]
            if not different and not same_numbers(info.facts, old.facts):
                different = ["model or loss (its losses without noise differ)"]
            if different:
                raise UsageError(
                    f"{self.path} holds a run with another {' and '.join(different)}; choose another out= (or "
                    "the settings of that run)."
                )
            info = info.joined(old)
        return info

    def facts(self) -> dict[str, Any]:
        """The facts of the run that is there; empty if there is none."""
        old = self._existing()
        return dict(old.facts) if old is not None else {}

    def engines(self) -> dict[str, str]:
        """The engines of the run that is there; empty if there is none."""
        old = self._existing()
        return dict(old.engines) if old is not None else {}

    def smoothed(self) -> dict[str, str]:
        """How the run that is there makes its smoothed references; empty if there is none."""
        old = self._existing()
        return dict(old.smoothed) if old is not None else {}

    def references(self, least: Sequence[str]) -> tuple[str, ...]:
        """Names of the run's references: those that it has, and those that are asked for."""
        old = self._existing()
        return tuple(dict.fromkeys([*(old.references if old is not None else ()), *least]))

    def keep(self, least: str) -> str:
        """What the run keeps: at least what is asked for, and what it kept before."""
        old = self._existing()
        return max(least, old.keep, key=KEEP.index) if old is not None else least

    def per_sample(self, asked: bool) -> bool:
        """Whether the run stores moments of samples: if that is asked for, or if it did before."""
        old = self._existing()
        return asked or (old is not None and bool(old.configuration.get("per_sample", False)))

    def done(
        self,
        key: UnitKey,
        readouts: Sequence[str],
        copies: int,
        references: Sequence[str],
        extras: Sequence[str] = (),
    ) -> set[str]:
        """The read-outs of a unit that are stored already, with enough copies, references and extras."""
        found: set[str] = set()
        for unit in self._units_of(key):
            enough = unit.copies >= copies and set(references) <= set(unit.references)
            enough = enough and set(extras) <= set(unit.extras)
            if enough and unit.status == "ok":
                found |= set(unit.readouts) & set(readouts)
        return found

    def most(self, key: UnitKey, readouts: Sequence[str]) -> int:
        """Most copies that a finished unit has of any of these read-outs; 0 if there is none."""
        own = (u for u in self._units_of(key) if u.status == "ok" and set(u.readouts) & set(readouts))
        return max((unit.copies for unit in own), default=0)

    def _units_of(self, key: UnitKey) -> list[Unit]:
        if self._by_key is None:
            self._by_key = {}
            for unit in self.units():
                self._by_key.setdefault(unit.key, []).append(unit)
        return self._by_key.get(key, [])

    def add(self, unit: Unit) -> None:
        """Store a finished unit."""
        if self.path is None:
            self._units.append(unit)
            return
        name = digest([str(unit.key), unit.readouts, unit.copies, unit.references, *unit.extras])[:32]
        write_atomically(self._units_folder() / f"{name}.npz", packed(unit_meta(unit), unit_arrays(unit)))

    def saver(self, wanted: Wanted, blocks: int) -> Saver:
        """Where the states of a unit go while it is computed.

        Args:
            wanted: What is computed.
            blocks: How many blocks it will have.
        """
        return self.kept.saver(wanted, blocks, self.keeps_sums(wanted.key))

    def keeps_sums(self, key: UnitKey) -> bool:
        """Whether the final state of a unit is kept, for good or until products are made of it."""
        assert self.info is not None
        return self.info.keep == "sums" or self.info.products.get(key.group) == KEPT

    def settle(self, wanted: Sequence[Wanted], blocks: int) -> None:
        """Store the products of a draw and layer whose units are done; forget their sums, unless they are kept.

        Args:
            wanted: Its units, one for each seed of the request.
            blocks: How many blocks they have.
        """
        assert self.info is not None
        if self.info.products.get(wanted[0].key.group) == KEPT:
            self.kept.make_products(wanted, blocks, self.info.seeds)
        # another process may have asked for more
        keep = self.info.keep if self.path is None else read_info(self.path).keep
        self.kept.forget_sums(wanted, blocks, superseded_only=keep == "sums")

    def units(self) -> Iterable[Unit]:
        """All finished units."""
        if self.path is None:
            return list(self._units)
        return [read_unit(self._units_folder() / name) for name in names_in(self._units_folder())]

    def dataset(self) -> xr.Dataset:
        """Everything stored so far, labelled; see :mod:`gradprobe.store.schema`."""
        info = self.info
        assert info is not None
        layers = [layer for layer in info.layers if layer.name in info.selected]
        facts = info.facts | {"configuration": info.configuration, "environment": info.environment}
        facts |= {"without_products": self._without_products()}
        facts |= {"identity": info.identity, "engines": info.engines, "smoothed": info.smoothed or None}
        if self.path is not None:
            facts["path"] = str(self.path)
        block, references = int(info.identity["block"]), tuple(info.references)
        copies = info.configuration.get("copies", 0)
        # before units: nothing is missed meanwhile
        partial = [state.unit for state in self.kept.partial.all()]
        units = [*partial, *self.units()]
        return assemble(
            layers, info.views, units, info.seeds, block, references, facts, copies, self.kept.products.all()
        )

    def _without_products(self) -> dict[str, list[str]] | None:
        """Labels -> layers whose products of seeds would have taken too much room."""
        assert self.info is not None
        gone = {group for group, what in self.info.products.items() if what == TOO_LARGE}
        found = {
            view.label: [
                layer
                for layer, (source, _) in view.sources.items()
                if not gone.isdisjoint(UnitKey(source, at, 0).group for at in (layer, None))
            ]
            for view in self.info.views
        }
        return {label: layers for label, layers in found.items() if layers} or None

    def tidy(self) -> None:
        """Forget what a process that was killed could not forget."""

        def stored(unit: Unit) -> bool:
            held = self.done(unit.key, unit.readouts, unit.copies, unit.references, tuple(unit.extras))
            return set(unit.readouts) <= held

        self.kept.tidy(stored)
        if self.path is not None:
            forget_abandoned(self.path)

    def _existing(self) -> RunInfo | None:
        if self.path is None:
            return None
        if (self.path / RUN_FILE).exists():
            return read_info(self.path)
        if not self.path.exists():
            return None
        if (self.path / BATCHES_FILE).exists():
            raise UsageError(
                f"{self.path} holds runs of several batches; say batches= (--batches) too, or choose another out=."
            )
        own = (TEMPORARY, ".lock")
        if not self.path.is_dir() or any(not f.name.startswith(own) for f in self.path.iterdir()):
            raise UsageError(f"{self.path} exists and is not a gradprobe run; choose another out=.")
        return None

    def _units_folder(self) -> Path:
        assert self.path is not None
        return self.path / "units"


def open_run(path: str | Path) -> xr.Dataset:
    """Open a run directory, also while it is being written, or an exported file. Needs no torch.

    Args:
        path: The directory, or a file that ``export`` wrote.

    Returns:
        Dataset as described in :mod:`gradprobe.store.schema`; of a folder of batches, as described in
        :mod:`gradprobe.store.batches`.

    Raises:
        UsageError: There is no run, or it was written by a newer version.

    Example:
        >>> kept = gp.probe(problem, "lr", copies=20, seeds=3, layers="fc", out=folder / "run")
        >>> gp.open_run(folder / "run").equals(kept)
        True
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"open_run takes the folder of a run, or an exported file, not {described(path)}.")
    if Path(path).is_file():
        return read_export(path)
    found = read_batches(Path(path))
    if found is not None:
        runs = {b: open_run(folder_of(Path(path), b)) for b in begun(Path(path))}
        if not runs:
            raise UsageError(f"{path} holds batches but no run of any yet; run the probe again.")
        return join_batches(runs, found.products)
    store = RunStore(path)
    store.info = read_info(Path(path))
    return store.dataset()
