"""Where a unit stands after some blocks: enough to go on to the same bits as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gradprobe.core.spec import digest
from gradprobe.store.files import cannot_write, names_in, write_atomically
from gradprobe.store.schema import Array, Unit, UnitKey
from gradprobe.store.unitfile import DAMAGED, packed, unit_arrays, unit_meta, unit_of


@dataclass(frozen=True)
class Wanted:
    """What a state must be of, to be of use to a unit that is computed.

    Attributes:
        key: The unit.
        readouts: Names of its R read-outs.
        parameters: Names of its P parameters.
        sizes: Their numbers of entries, D in all.
        block: Copies in a block.
        references: Names of the references.
        reference_copies: Copies behind a smoothed reference; 0 if there is none.
        extras: Names of further means.
    """

    key: UnitKey
    readouts: tuple[str, ...]
    parameters: tuple[str, ...]
    sizes: tuple[int, ...]
    block: int
    references: tuple[str, ...]
    reference_copies: int
    extras: tuple[str, ...] = ()


@dataclass
class State:
    """A unit after K blocks, and what it needs to go on.

    Attributes:
        unit: The unit so far; its status is "partial", or "ok" if it is finished.
        sums: Sum of the block directions ``[R, D]``, parameters in their order, flat.
        squares: Sum of |B_k|^2 ``[R, P]``.
        sizes: Number of entries of each parameter.
        reference_copies: Copies behind a smoothed reference; 0 if there is none.
        extras: Sums over the blocks of the unit's further means ``[R, P, ...]``, by name.
    """

    unit: Unit
    sums: Array
    squares: Array
    sizes: tuple[int, ...]
    reference_copies: int
    extras: dict[str, Array] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """K."""
        return self.unit.sqnorm.shape[-1]

    @property
    def wanted(self) -> Wanted:
        """What it is of."""
        u, extras = self.unit, tuple(self.extras)
        return Wanted(
            u.key, u.readouts, u.parameters, self.sizes, u.block, u.references, self.reference_copies, extras
        )


def combined(states: Iterable[State], wanted: Wanted, most: int) -> State | None:
    """The state from which a unit can go on: the one with most blocks that has all read-outs.

    Read-outs of one draw do not influence each other, so those of several states of equally many blocks may
    be put together.

    Args:
        states: What there is.
        wanted: What the state must be of.
        most: The most blocks that are of use.

    Returns:
        The state, with exactly the read-outs that are wanted; None if there is none.
    """
    found: dict[int, dict[str, State]] = {}
    for state in states:
        if replace(state.wanted, readouts=wanted.readouts) == wanted and state.blocks <= most:
            for name in state.unit.readouts:
                found.setdefault(state.blocks, {})[name] = state
    whole = [k for k, by_name in found.items() if set(wanted.readouts) <= set(by_name)]
    return _joined(found[max(whole)], wanted.readouts) if whole else None


def _joined(by_name: dict[str, State], readouts: Sequence[str]) -> State:
    rows = [(by_name[name], by_name[name].unit.readouts.index(name)) for name in readouts]
    first = rows[0][0]
    unit = replace(
        first.unit,
        readouts=tuple(readouts),
        dot=np.stack([s.unit.dot[:, r] for s, r in rows], axis=1),
        sqnorm=np.stack([s.unit.sqnorm[r] for s, r in rows]),
        block_sqnorm=np.stack([s.unit.block_sqnorm[r] for s, r in rows]),
        extras={name: np.stack([s.unit.extras[name][r] for s, r in rows]) for name in first.extras},
    )
    sums = first.sums if len({id(s) for s, _ in rows}) == 1 and first.unit.readouts == unit.readouts else None
    return replace(
        first,
        unit=unit,
        sums=np.stack([s.sums[r] for s, r in rows]) if sums is None else sums,
        squares=np.stack([s.squares[r] for s, r in rows]),
        extras={name: np.stack([s.extras[name][r] for s, r in rows]) for name in first.extras},
    )


def superseded(state: State, others: Iterable[State]) -> bool:
    """Whether one of the others has more blocks of all that this state has."""
    return any(
        other.blocks > state.blocks
        and replace(other.wanted, readouts=state.unit.readouts) == state.wanted
        and set(state.unit.readouts) <= set(other.unit.readouts)
        for other in others
    )


class States:
    """States of units, each under a name of its own, in a folder or in memory.

    Args:
        folder: Where to; None keeps them in memory.
        final: Whether states of different numbers of blocks are kept side by side.
    """

    def __init__(self, folder: Path | None, final: bool = False) -> None:
        self.folder = folder
        self.final = final
        self._held: dict[str, State] = {}

    def put(self, state: State) -> None:
        """Keep a state; an older one of the same name is replaced.

        Raises:
            UsageError: It cannot be written.
        """
        name = self._name(state)
        if self.folder is None:
            self._held[name] = state
            return
        meta = unit_meta(state.unit) | {
            "sizes": list(state.sizes),
            "reference_copies": state.reference_copies,
        }
        arrays = unit_arrays(state.unit) | {"sums": state.sums, "squares": state.squares}
        arrays |= {f"{_SUM}{name}": value for name, value in state.extras.items()}
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_atomically(self.folder / name, packed(meta, arrays))

    def of(self, *keys: UnitKey, sums: bool = True) -> list[State]:
        """The states of units; a file that cannot be read counts as not there.

        Args:
            *keys: The units.
            sums: False: sums that are in files are not read and stand as NaN.
        """
        if self.folder is None:
            return [state for state in self._held.values() if state.unit.key in keys]
        marks = {_mark(str(key)) for key in keys}
        names = [name for name in names_in(self.folder) if name.partition("-")[0] in marks]
        found = (_read(self.folder / name, sums) for name in names)
        return [state for state in found if state is not None and state.unit.key in keys]

    def all(self) -> list[State]:
        """All states; sums that are in files are not read and stand as NaN."""
        if self.folder is None:
            return list(self._held.values())
        found = (_read(self.folder / name, False) for name in names_in(self.folder))
        return [state for state in found if state is not None]

    def drop(self, state: State) -> None:
        """Forget a state, if it is there."""
        self.forget(self._name(state))

    def forget(self, name: str) -> None:
        """Forget what has this name (of :meth:`name_of`), if it is there."""
        if self.folder is None:
            self._held.pop(name, None)
        else:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def name_of(self, wanted: Wanted, blocks: int = 0) -> str:
        """The name under which a state is kept."""
        what = [wanted.readouts, wanted.parameters, wanted.sizes, wanted.block, wanted.references]
        rest = [*what, wanted.reference_copies, blocks if self.final else 0, *wanted.extras]
        return f"{_mark(str(wanted.key))}-{_mark(rest)}.npz"

    def _name(self, state: State) -> str:
        return self.name_of(state.wanted, state.blocks)


_SUM = "sum of "


def _mark(value: object) -> str:
    return digest(value)[:20]


def _read(file: Path, sums: bool) -> State | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            unit, sizes = unit_of(meta, data), tuple(meta["sizes"])
            squares = data["squares"]
            held = data["sums"] if sums else np.broadcast_to(np.nan, (len(unit.readouts), sum(sizes)))
            extras = {name: data[f"{_SUM}{name}"] for name in unit.extras}
        state = State(unit, held, squares, sizes, meta["reference_copies"], extras)
        return state if _whole(state) else None
    except DAMAGED:
        return None


def _whole(state: State) -> bool:
    """Whether all shapes fit together."""
    u, r, p, k = state.unit, len(state.unit.readouts), len(state.unit.parameters), state.blocks
    shapes = {"dot": (len(u.references), r, p, k), "sqnorm": (r, p, k), "block_sqnorm": (r, p, k)}
    shapes |= {name: (k,) for name in ("forwards", "equivalents", "nonfinite")}
    fits = all(getattr(u, name).shape == shape for name, shape in shapes.items())
    fits = fits and all(x.shape[:2] == (r, p) for x in (*u.extras.values(), *state.extras.values()))
    return fits and state.sums.shape == (r, sum(state.sizes)) and state.squares.shape == (r, p)
