"""From a block of a draw to the directions of every read-out that shares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import bytes_per_copy, free_unused, is_out_of_memory
from gradprobe.engine.parts import calls
from gradprobe.engine.preflight import agrees, choose_engine, traced
from gradprobe.engine.run import run
from gradprobe.estimators.blockread import BlockRead, Directions, Read
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem

if TYPE_CHECKING:
    from gradprobe.estimators.base import Estimator


def planned_read(
    estimator: Estimator, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
) -> Read:
    """One block of an estimator that assigns a draw and a read-out to each layer.

    Returns:
        One direction, and the most copies that any of its draws lost.
    """
    assigned = estimator.assignment(layers)
    if assigned is None:
        raise UsageError(f"{type(estimator).__name__} defines neither directions nor assignment.")
    found: Directions = {}
    lost = 0
    with problem.frozen():
        for draw in dict.fromkeys(draw for draw, _ in assigned.values()):
            served = [layer for layer in layers if layer.name in assigned and assigned[layer.name][0] == draw]
            for unit in unit_layers(draw, served):
                readouts = list(dict.fromkeys(assigned[layer.name][1] for layer in unit))
                read = read_block(problem, draw, unit, readouts, block, streams)
                lost = max(lost, read.nonfinite)
                for layer in unit:
                    mine = read.directions[readouts.index(assigned[layer.name][1])]
                    found |= {name: mine[name] for name in layer.parameters}
    return Read([found], lost)


def unit_layers(draw: Draw, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers that are noisy together."""
    by_name = {layer.name: layer for layer in layers}
    return [[by_name[name] for name in names] for names in draw.units(list(by_name))]


def read_block(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    block: Block,
    streams: Streams,
    engine: str = "auto",
) -> Read:
    """Run one block of a draw once and read it in several ways; see :func:`read_blocks`."""
    blocks = range(block.index, block.index + 1)
    return next(read_blocks(problem, draw, layers, readouts, blocks, block.copies, streams, engine))


def read_blocks(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    blocks: Sequence[int],
    copies: int,
    streams: Streams,
    engine: Engine | str = "auto",
    most: int | None = None,
) -> Iterator[Read]:
    """Run blocks of a draw once and read them in several ways.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together, in execution order.
        readouts: How to read it.
        blocks: Indices of the blocks.
        copies: Copies in a block.
        streams: Noise of the seed.
        engine: ``"auto"``, or an :class:`Engine` as text; one that was chosen elsewhere as an object: the loop
            takes its place where it does not agree with the loop here.
        most: Copies in one call of the engine at most: what memory has room for.

    Yields:
        For each block a direction of every parameter of the layers, for every read-out: the mean over the
        block's copies. A copy with a loss that is not finite counts as 0, so that blocks stay alike however
        many they lost; the length shrinks by the share of finite copies.
    """
    draw.check_block(copies)
    left = list(blocks)
    with problem.frozen():
        problem.clean_losses()
        how = _engine(problem, draw, layers, engine)
        room = _room(how, draw, layers, readouts, copies)
        if most is not None:
            room = min(room, most)
        least = 2 if draw.antithetic else 1
        while left:
            try:
                for read in _attempt(problem, draw, layers, readouts, left, copies, streams, how, room):
                    yield read
                    left.pop(0)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if room <= least:
                    raise UsageError(_too_large(problem, draw, layers)) from None
            room = max(room // 2, least)  # the same blocks have the same keys: numbers do not change
            free_unused()


def _attempt(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    blocks: Sequence[int],
    copies: int,
    streams: Streams,
    how: Engine,
    room: int,
) -> Iterator[Read]:
    """Read blocks with ``room`` copies in one call."""
    paired = draw.antithetic
    graph = traced(problem, draw, layers, how)
    twice = room < copies and any(readout.centre == "mean" for readout in readouts)
    reading: BlockRead | None = None
    for parts in calls(list(blocks), copies, paired, room):
        if reading is None and twice:  # the centre is the mean of losses that are yet to come
            steps = calls([parts[0].block], copies, paired, room)
            known = [run(problem, draw, layers, step, streams, how, graph).losses for step in steps]
        outcome = run(problem, draw, layers, parts, streams, how, graph)
        start = 0
        for part in parts:
            if reading is None:
                reading = BlockRead(
                    problem, draw, layers, readouts, copies, known if twice else (), how.layout
                )
            reading.add(outcome, slice(start, start + part.copies))
            start += part.copies
            if reading.full:
                yield reading.read()
                reading = None


def _room(how: Engine, draw: Draw, layers: Sequence[Layer], readouts: Sequence[ReadOut], copies: int) -> int:
    """Copies in one call: as the engine likes it, but see what must stay together."""
    room = how.copies or copies
    if any(readout.centre == "mean" for readout in readouts):
        room = max(room, copies)
    noisy_inputs = draw.where == "activations" and (len(layers) > 1 or any(x.calls > 1 for x in layers))
    return min(room, copies) if noisy_inputs else room


def _too_large(problem: Problem, draw: Draw, layers: Sequence[Layer]) -> str:
    need = bytes_per_copy(problem, draw, layers) / 2**20
    return (
        f"memory ran out with a single copy of layer {layers[0].name!r}, which needs about {need:,.0f} MiB; use a "
        "smaller batch."
    )


def _engine(problem: Problem, draw: Draw, layers: Sequence[Layer], wish: Engine | str) -> Engine:
    """The engine that was asked for or chosen, if it serves this draw, else one that does."""
    names = tuple(layer.name for layer in layers)
    kind = (draw.where, draw.injection, draw.share)

    def choose() -> Engine:
        if isinstance(wish, Engine):
            return wish if agrees(problem, draw, layers, wish) else Engine("loop")
        return choose_engine(problem, draw, layers, wish)

    return problem.once(("engine", kind, names, wish), choose)
