"""From a block of a draw to the directions of every read-out that shares it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.level import Level, noisy
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import SPARE, bytes_per_copy, free_unused, is_out_of_memory, room_for
from gradprobe.engine.parts import Part, calls
from gradprobe.engine.preflight import agrees, choose_engine, traced
from gradprobe.engine.run import Outcome, run
from gradprobe.estimators._usual import usual_engine
from gradprobe.estimators.apart import ApartRead
from gradprobe.estimators.blockread import BlockRead, Directions, Read, Reading
from gradprobe.estimators.keeping import storing
from gradprobe.estimators.levelread import LevelRead
from gradprobe.problems.problem import Problem

if TYPE_CHECKING:
    from gradprobe.estimators.base import Assignment, Estimator

LITTLE = 2**26
"""Bytes that a block may take without asking how many are free."""


def planned_read(
    estimator: Estimator,
    problem: Problem,
    layers: Sequence[Layer],
    block: Block,
    streams: Streams,
    memory: int | None = None,
    sharers: int = 1,
    storage: str = "float32",
) -> Read:
    """One block of an estimator that assigns a draw and a read-out to each layer; see :meth:`Estimator.read`.

    Returns:
        One direction, and the most copies that any of its draws lost.
    """
    assigned = estimator.assignment(layers)
    if assigned is None:
        raise UsageError(f"{type(estimator).__name__} defines neither directions nor assignment.")
    found: Directions = {}
    lost, taken = 0.0, np.zeros(2)
    with problem.frozen():
        for draw, unit in noisy_together(assigned, layers):
            readouts = list(dict.fromkeys(assigned[layer.name][1] for layer in unit))
            most = _room_in_memory(problem, draw, noisy(unit), len(readouts), block.copies, memory, sharers)
            engine = usual_engine(problem, draw, noisy(unit), block.copies)
            reading = Reading(problem, draw, unit, readouts, streams, storage=storage)
            read = read_block(reading, block, engine, most)
            lost, taken = max(lost, read.nonfinite), np.maximum(taken, read.bytes)
            for layer in unit:
                mine = read.directions[readouts.index(assigned[layer.name][1])]
                found |= {name: mine[name] for name in layer.parameters}
    return Read([found], lost, bytes=taken)


def noisy_together(assigned: Assignment, layers: Sequence[Layer]) -> Iterator[tuple[Draw, list[Layer]]]:
    """Each draw of an assignment with layers that are noisy at once under it."""
    by_name = {layer.name: layer for layer in layers}
    for draw in dict.fromkeys(draw for draw, _ in assigned.values()):
        served = [name for name in by_name if name in assigned and assigned[name][0] == draw]
        for names in draw.units(served):
            yield draw, [by_name[name] for name in names]


def _room_in_memory(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    directions: int,
    copies: int,
    memory: int | None,
    sharers: int,
) -> int | None:
    """Copies that the memory has room for, asked once while the problem is frozen; None for all of a small block."""
    names = tuple(layer.name for layer in layers)
    if memory is None:
        need = problem.once(("need", draw, names), lambda: bytes_per_copy(problem, draw, layers))
        if copies * need < LITTLE:
            return None
    return problem.memo(
        ("room", draw, names, directions, memory, sharers),
        lambda: room_for(problem, draw, layers, directions, memory, sharers),
    )


def read_block(
    reading: Reading, block: Block, engine: Engine | str = "auto", most: int | None = None
) -> Read:
    """Run one block of a draw once and read it in several ways; see :func:`read_blocks`."""
    return next(read_blocks(reading, range(block.index, block.index + 1), block.copies, engine, most))


def read_blocks(
    reading: Reading,
    blocks: Sequence[int],
    copies: int,
    engine: Engine | str = "auto",
    most: int | None = None,
) -> Iterator[Read]:
    """Run blocks of a draw once and read them in several ways.

    Args:
        reading: What to run and how to read it.
        blocks: Indices of the blocks.
        copies: Copies in a block.
        engine: ``"auto"``, or an :class:`Engine` as text; one that was chosen elsewhere as an object: the loop
            takes its place where it does not agree with the loop here.
        most: Copies in one call of the engine at most: what memory has room for.

    Yields:
        For each block a direction of every parameter of the layers, for every read-out: the mean over the
        block's copies. A copy with a loss that is not finite counts as 0, so that blocks stay alike however
        many they lost; the length shrinks by the share of finite copies.

    Raises:
        UsageError: A single copy (or antithetic pair) does not fit into memory.
    """
    reading.draw.check_block(copies)
    left = list(blocks)
    with reading.problem.frozen():
        reading.problem.clean_losses()
        how = _engine(reading, engine)
        room = _room(reading, how, copies)
        if most is not None:
            room = min(room, most)
        hold = _held_bytes(reading, room, most)
        least = 2 if reading.draw.antithetic else 1
        while left:
            try:
                for read in _attempt(reading, left, copies, how, room, hold):
                    yield read
                    left.pop(0)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if room <= least:
                    raise UsageError(_too_large(reading)) from None
            hold = 0.0
            room = max(room // 2, least)  # the same blocks have the same keys: numbers do not change
            free_unused()


def _attempt(
    reading: Reading, blocks: Sequence[int], copies: int, how: Engine, room: int, hold: float
) -> Iterator[Read]:
    """Read blocks with ``room`` copies in one call, and ``hold`` bytes for calls that wait for others' losses."""
    problem, draw, layers = reading.problem, reading.draw, reading.noisy
    graph = traced(problem, draw, layers, how)
    kind = _kind(reading)
    storage = reading.storage if kind.reads_signs else "float32"
    kept = storing(problem, draw, layers, reading.readouts, storage, reading.per_sample)
    twice = room < copies and any(readout.shaping.whole for readout in reading.readouts)

    def outcome(parts: list[Part]) -> Outcome:
        return run(problem, draw, layers, parts, reading.streams, how, graph, kept)

    begun: BlockRead | None = None
    known: list[Outcome] = []
    waiting: list[Outcome] = []
    for parts in calls(list(blocks), copies, draw.antithetic, room):
        if begun is None:
            known, waiting = [], []
            if twice:  # the centre needs losses that are yet to come
                steps = calls([parts[0].block], copies, draw.antithetic, room)
                known, waiting = _run_ahead(map(outcome, steps), hold, copies)
        found = waiting.pop(0) if waiting else outcome(parts)
        start = 0
        for part in parts:
            begun = begun or kind(reading, copies, known, how.layout)
            begun.add(found, slice(start, start + part.copies))
            start += part.copies
            if begun.full:
                yield begun.read()
                begun = None


def _run_ahead(outcomes: Iterable[Outcome], hold: float, copies: int) -> tuple[list[Outcome], list[Outcome]]:
    """The losses of all calls of a block; and the calls themselves if what they keep fits, else none of them.

    Without them the block runs twice, to the same numbers: signs in bits let 32 times as many copies wait.
    """
    known: list[Outcome] = []
    waiting: list[Outcome] = []
    for found in outcomes:
        known.append(found.only_losses())
        if found.bytes[0] * copies <= hold:
            waiting.append(found)
    return known, waiting if len(waiting) == len(known) else []


def _held_bytes(reading: Reading, room: int, most: int | None) -> float:
    """Bytes for calls that wait, beside one of ``room`` copies: what ``most`` would take, and what that frees."""
    if most is None:
        return math.inf
    each = bytes_per_copy(reading.problem, reading.draw, reading.noisy)
    return (most - room + SPARE * room) * each


def _kind(reading: Reading) -> type[BlockRead]:
    """How it is read: levels of noise, what each sample contributes, or directions alone."""
    if any(isinstance(layer, Level) for layer in reading.layers):
        return LevelRead
    return ApartRead if reading.per_sample else BlockRead


def _room(reading: Reading, how: Engine, copies: int) -> int:
    """Copies in one call: as the engine likes it, but see what must stay together."""
    room = how.copies or copies
    later_calls = len(reading.noisy) > 1 or any(layer.calls > 1 for layer in reading.noisy)
    return min(room, copies) if reading.draw.where == "activations" and later_calls else room


def _too_large(reading: Reading) -> str:
    need = bytes_per_copy(reading.problem, reading.draw, reading.noisy) / 2**20
    return (
        f"memory ran out with a single copy of layer {reading.noisy[0].name!r}, which needs about {need:,.0f} "
        "MiB; use a smaller batch."
    )


def _engine(reading: Reading, wish: Engine | str) -> Engine:
    """The engine that was asked for or chosen, if it serves this draw, else one that does."""
    problem, draw, layers = reading.problem, reading.draw, reading.noisy

    def choose() -> Engine:
        if isinstance(wish, Engine):
            return wish if agrees(problem, draw, layers, wish) else Engine("loop")
        return choose_engine(problem, draw, layers, wish)

    return problem.once(("engine", *draw.kind(layers), wish), choose)
