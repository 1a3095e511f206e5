"""Products of the seeds' final directions: <g_N^(s), g_N^(t)> for every pair of seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradprobe.core.spec import digest
from gradprobe.store.files import cannot_write, names_in, write_atomically
from gradprobe.store.schema import SCHEMA_VERSION, Array, Unit
from gradprobe.store.state import State
from gradprobe.store.unitfile import DAMAGED, packed


@dataclass(frozen=True)
class Products:
    """Products of one draw (or estimator) and layer, at one number of copies.

    Attributes:
        source: Draw, or an estimator's own label.
        layer: The layer; None if one draw serves all.
        copies: Copies behind each direction.
        readouts: Names of the R read-outs.
        parameters: Names of the P parameters.
        seeds: The S seeds.
        values: ``[R, P, S, S]``, symmetric.
    """

    source: str
    layer: str | None
    copies: int
    readouts: tuple[str, ...]
    parameters: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Array

    def covers(self, other: Products) -> bool:
        """Whether all that the other says is said here."""
        same = (self.source, self.layer, self.copies) == (other.source, other.layer, other.copies)
        return same and all(
            set(getattr(other, name)) <= set(getattr(self, name))
            for name in ("readouts", "parameters", "seeds")
        )


def products_of(states: Iterable[State]) -> list[Products]:
    """Products of the final states of one draw (or estimator) and layer.

    Each product is computed from its two sums alone, so that it is bitwise the same whatever other seeds are
    there.

    Args:
        states: Final states of any seeds, read-outs and numbers of copies.

    Returns:
        One entry for each number of copies and each set of read-outs that have the same seeds.
    """
    sums: dict[tuple[int, str], dict[int, tuple[State, int]]] = {}
    for state in states:
        for row, name in enumerate(state.unit.readouts):
            sums.setdefault((state.unit.copies, name), {})[state.unit.key.seed] = (state, row)
    alike: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for (copies, name), by_seed in sums.items():
        alike.setdefault((copies, tuple(sorted(by_seed))), []).append(name)
    found = []
    for (copies, seeds), names in alike.items():
        values = np.stack([_pairs([sums[copies, name][seed] for seed in seeds]) for name in names])
        unit = sums[copies, names[0]][seeds[0]][0].unit
        found.append(
            Products(unit.key.source, unit.key.layer, copies, tuple(names), unit.parameters, seeds, values)
        )
    return found


def _pairs(rows: Sequence[tuple[State, int]]) -> Array:
    """``[P, S, S]`` of one read-out."""
    first = rows[0][0]
    ends = np.cumsum(first.sizes)[:-1]
    parts = [np.split(state.sums[row], ends) for state, row in rows]
    found = np.empty((len(first.sizes), len(rows), len(rows)))
    for s, a in enumerate(parts):
        for t, b in enumerate(parts[: s + 1]):
            for p, (x, y) in enumerate(zip(a, b, strict=True)):
                found[p, s, t] = found[p, t, s] = float((x * y).sum()) / first.blocks**2
    return found


class ProductFiles:
    """Products of a run, each in an immutable file, or in memory.

    Args:
        folder: Where to; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: list[Products] = []

    def put(self, products: Products) -> None:
        """Store products.

        Raises:
            UsageError: They cannot be written.
        """
        if self.folder is None:
            self._held.append(products)
            return
        meta = {name: value for name, value in vars(products).items() if name != "values"}
        meta |= {"schema_version": SCHEMA_VERSION}
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        name = f"{_mark(products.source, products.layer)}-{digest(meta)[:20]}.npz"
        write_atomically(self.folder / name, packed(meta, {"values": products.values}))

    def all(self) -> list[Products]:
        """All that is stored; a file that cannot be read counts as not there."""
        if self.folder is None:
            return list(self._held)
        found = (_read(self.folder / name) for name in names_in(self.folder))
        return [products for products in found if products is not None]

    def cover(self, wanted: Products) -> bool:
        """Whether products are stored already; the values of those that are asked for do not matter."""
        held = self._held
        if self.folder is not None:
            mark = _mark(wanted.source, wanted.layer)
            files = [self.folder / n for n in names_in(self.folder) if n.partition("-")[0] == mark]
            held = [products for file in files if (products := _read(file)) is not None]
        return any(products.covers(wanted) for products in held)


def _mark(source: str, layer: str | None) -> str:
    return digest([source, layer])[:20]


def _read(file: Path) -> Products | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            lists = {name: tuple(meta[name]) for name in ("readouts", "parameters", "seeds")}
            products = Products(meta["source"], meta["layer"], meta["copies"], **lists, values=data["values"])
    except DAMAGED:
        return None
    r, p, s = (len(x) for x in lists.values())
    return products if products.values.shape == (r, p, s, s) else None


def fill_products(
    table: Array,
    products: Sequence[Products],
    source: tuple[str, str],
    layer: tuple[str, Sequence[str]],
    seeds: Sequence[int],
    units: Sequence[Unit | None],
) -> None:
    """Put products into the part of the Dataset that belongs to one estimator and layer.

    Args:
        table: ``[P of the layer, S, S]``, changed in place.
        products: What is stored.
        source: Draw (or estimator), and read-out.
        layer: The layer's name and parameters.
        seeds: The S seeds.
        units: For each seed the unit that the results show; a product counts only if it is of its last copies.
    """
    whole = [(seed, u) for seed, u in zip(seeds, units, strict=True) if u is not None and u.status == "ok"]
    last = {seed: unit.copies for seed, unit in whole}
    for found in products:
        same = found.source == source[0] and found.layer in (None, layer[0])
        if not same or source[1] not in found.readouts:
            continue
        shown = [j for j, seed in enumerate(found.seeds) if last.get(seed) == found.copies]
        rows = [found.parameters.index(name) for name in layer[1]]
        at = [list(seeds).index(found.seeds[j]) for j in shown]
        values = found.values[found.readouts.index(source[1])]
        table[np.ix_(range(len(rows)), at, at)] = values[np.ix_(rows, shown, shown)]
        for s in at:
            unit = units[s]
            assert unit is not None
            r, where = unit.readouts.index(source[1]), [unit.parameters.index(name) for name in layer[1]]
            table[:, s, s] = unit.sqnorm[r, where, -1]
