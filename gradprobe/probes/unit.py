"""Computing one unit: blocks of directions into moments, with the references that they are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import peak_memory, spare
from gradprobe.estimators.blockread import Read, Reading
from gradprobe.estimators.draws import read_blocks
from gradprobe.probes.interrupt import Stopped
from gradprobe.probes.plan import Task
from gradprobe.probes.references import Known, make_references, room
from gradprobe.probes.running import Running, wanted
from gradprobe.probes.settings import Settings, engine_key
from gradprobe.problems.problem import Problem
from gradprobe.store.saver import Saver
from gradprobe.store.schema import Unit

Tick = Callable[[int], None]


def compute(
    problem: Problem,
    task: Task,
    known: Known,
    settings: Settings,
    tick: Tick = lambda copies: None,
    saver: Saver | None = None,
) -> Unit:
    """Compute a unit, or the rest of it.

    Args:
        problem: The problem.
        task: What to compute.
        known: References without noise, which all units share.
        settings: What all units share.
        tick: Called after each block with the number of copies in it, and first of all with those that the
            saver had. If it raises, the state is saved; Stopped after the last block is ignored, since the
            unit is finished then.
        saver: Where to go on from, and where states go. None: nowhere, and nothing is saved.

    Returns:
        The unit; its status is "failed" if every copy's loss was not finite or the draw cannot be run. If it
        is "ok", the saver has been given the final state.
    """
    saver = saver if not task.fixed else None
    start = time.perf_counter()
    problem.limit_memory(spare(problem.device, settings.memory, settings.sharers))
    references = make_references(problem, task, task.parameters, known, settings, tick)
    spent = time.perf_counter() - start
    running = Running(task, wanted(task, settings), references, share=_share(task, settings))
    state = saver.load() if saver is not None else None
    if state is not None:
        running.resume(state, known["bp"])
        tick(running.blocks * settings.block)
    count = 1 if task.fixed else settings.blocks
    with peak_memory(problem.device) as peak:
        note = _run(problem, running, settings, count, tick, saver, start + spent) or _useless(running, count)
    status = "failed" if note else "ok"
    if not note and any(not np.isfinite(r.block_sqnorm).all() for r in references.values()):
        note = "the smoothed reference is not finite: a copy of its own had a loss that was not"
    if not note and settings.unfollowed and (task.draw is not None or task.drawn):
        note = f"a copy is booked as a whole forward: {settings.unfollowed}"
    unit = running.unit(status, note, time.perf_counter() - start - spent, count)
    unit.peak_bytes = peak.bytes
    if saver is not None and status == "ok":
        saver.finish(running.state(unit))
    return unit


def _run(
    problem: Problem,
    running: Running,
    settings: Settings,
    count: int,
    tick: Tick,
    saver: Saver | None,
    start: float,
) -> str:
    """Add the blocks that are missing; return why that is impossible, or ""."""

    def save(saver: Saver) -> None:
        saver.save(running.state(running.unit("partial", "", time.perf_counter() - start, running.blocks)))

    before = problem.forwards - (running.forwards[-1] if running.forwards else 0)
    # closed whatever happens: it holds the problem frozen
    with closing(_reads(problem, running.task, range(running.blocks, count), settings)) as reads:
        while running.blocks < count:
            try:
                read = next(reads)
            except UsageError as error:
                return str(error)
            running.add(read, problem.forwards - before)
            last = running.blocks == count
            try:
                tick(settings.block)
            except Exception as stop:
                if last and isinstance(stop, Stopped):
                    break
                if saver is not None:
                    save(saver)
                raise
            if saver is not None and not last and saver.due():
                with suppress(UsageError):  # it cannot be written now: the unit itself needs less room
                    save(saver)
    return ""


def _share(task: Task, settings: Settings) -> float:
    """Share of a forward that a copy of a task needs."""
    if task.draw is not None:
        return settings.shares.get(engine_key(task.draw, task.noisy), float(task.draw.passes))
    return sum(
        n * settings.shares.get(engine_key(draw, unit), float(draw.passes)) for draw, unit, n in task.drawn
    )


def _useless(running: Running, count: int) -> str:
    """Why a unit whose blocks are all there says nothing, or ""."""
    if sum(running.nonfinite) < count * running.of.block:
        return ""
    if running.task.drawn:
        return "in one of the layers the loss of every copy was not finite; use a smaller sigma or look at the model"
    if running.task.estimator is not None:
        return f"{type(running.task.estimator).__name__}.directions returned values that are not finite"
    return "the loss of every copy was not finite; use a smaller sigma or look at the model's outputs"


def _reads(problem: Problem, task: Task, blocks: range, settings: Settings) -> Generator[Read, None, None]:
    """The blocks of a unit, one after the other."""
    streams = settings.streams(task.key.seed)
    if task.draw is None:
        yield from (_own(problem, task, Block(index, settings.block), streams, settings) for index in blocks)
        return
    readouts = list(task.readouts.values())
    chosen = settings.engines.get(engine_key(task.draw, task.noisy))
    engine = settings.engine if chosen is None else Engine.parse(chosen)
    most = room(problem, task, settings)
    apart = bool(task.extras(settings.per_sample))
    reading = Reading(problem, task.draw, task.layers, readouts, streams, apart, settings.storage)
    yield from read_blocks(reading, blocks, settings.block, engine, most)


def _own(problem: Problem, task: Task, block: Block, streams: Streams, settings: Settings) -> Read:
    """A block of an estimator that is no read-out."""
    assert task.estimator is not None
    read = task.estimator.read(
        problem, task.layers, block, streams, settings.memory, settings.sharers, settings.storage
    )
    found = read.directions[0]
    missing = [p for layer in task.layers for p in layer.parameters if p not in found]
    if missing:
        raise UsageError(f"{type(task.estimator).__name__}.directions returned nothing for {missing[0]!r}.")
    for layer in task.layers:
        for p, shape in zip(layer.parameters, layer.shapes, strict=True):
            if not isinstance(found[p], torch.Tensor) or tuple(found[p].shape) != shape:
                raise UsageError(
                    f"{type(task.estimator).__name__}.directions must return {p!r} with shape {shape}"
                )
    if all(bool(d.isfinite().all()) for d in found.values()):
        return Read([found], read.nonfinite, bytes=read.bytes)
    return Read([{p: torch.zeros_like(d) for p, d in found.items()}], block.copies)
