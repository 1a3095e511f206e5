"""What a run holds beside its units: states to go on from, and products of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gradprobe.store.products import ProductFiles, Products, products_of
from gradprobe.store.saver import Pace, RunSaver, Saver
from gradprobe.store.schema import Unit
from gradprobe.store.state import States, Wanted, superseded


class Kept:
    """States of units, finished or not, and products of seeds, in a run directory or in memory.

    Args:
        path: The run directory; None keeps everything in memory.

    Attributes:
        partial: States of units that are not finished.
        sums: Final states.
        products: Products of seeds.
    """

    def __init__(self, path: Path | None) -> None:
        self.partial = States(path / "partial" if path else None)
        self.sums = States(path / "sums" if path else None, final=True)
        self.products = ProductFiles(path / "products" if path else None)
        self._pace = Pace() if path else None  # a state in memory is of use only when a stop was asked for

    def saver(self, wanted: Wanted, blocks: int, final: bool) -> Saver:
        """Where the states of a unit go while it is computed.

        Args:
            wanted: What is computed.
            blocks: How many blocks it will have.
            final: Whether its final state is kept.
        """
        return RunSaver(
            wanted, blocks, self.partial, self.sums if final else None, self._pace, older=self.sums
        )

    def make_products(self, wanted: Sequence[Wanted], blocks: int, others: Iterable[int]) -> None:
        """Store the products of a draw and layer whose units are done.

        Args:
            wanted: Its units, one for each seed of the request.
            blocks: How many blocks they have.
            others: Further seeds, which take part if their sums are there.
        """
        of, seeds = wanted[0], tuple(w.key.seed for w in wanted)
        source, layer, copies = of.key.source, of.key.layer, blocks * of.block
        goal = Products(source, layer, copies, of.readouts, of.parameters, seeds, values=np.empty(0))
        if self.products.cover(goal):
            return
        keys = [replace(of.key, seed=seed) for seed in {*seeds, *others}]
        for products in products_of(self.sums.of(*keys)):
            if not self.products.cover(products):
                self.products.put(products)

    def forget_sums(self, wanted: Sequence[Wanted], blocks: int, superseded_only: bool) -> None:
        """Forget final states of a draw and layer.

        Args:
            wanted: Its units, one for each seed of the request. States of other requests, with other
                read-outs or more blocks, stay: another process may need them.
            blocks: How many blocks the units have.
            superseded_only: Forget only those that another one makes superfluous.
        """
        states = self.sums.of(*(w.key for w in wanted), sums=False)
        names = set(wanted[0].readouts)
        for state in states:
            own = state.blocks <= blocks and set(state.unit.readouts) <= names
            if superseded(state, states) if superseded_only else own:
                self.sums.drop(state)

    def tidy(self, stored: Callable[[Unit], bool]) -> None:
        """Forget partial states of units that are stored: a process was killed before it could."""
        for state in self.partial.all():
            if stored(state.unit):
                self.partial.drop(state)
