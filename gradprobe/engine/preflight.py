"""Choosing an engine: one that gives what the loop gives, and the fastest of those."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import NAMES, Engine
from gradprobe.engine.parts import calls
from gradprobe.engine.prefix import record
from gradprobe.engine.run import run

ENGINES = ("auto", *NAMES)

TRIAL = Streams(0, 0, "preflight")

WORTH = 0.05
"""Of the time that a unit will take, what looking for a faster engine may cost."""

LITTLE = 0.1
"""Seconds that looking may always cost."""

SHORT = 2e-3
"""Seconds of a copy up to which calls of many copies are tried first."""


def choose_engine(problem: Runnable, draw: Draw, layers: Sequence[Layer], wish: str = "auto") -> Engine:
    """The engine for a draw on these layers.

    A fast engine is taken only if two copies of unit noise give the same losses as the loop, within 1e-4 of
    their size (float32 forwards of another batch size differ by about 1e-6).

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        wish: ``"auto"`` (tile, else the loop), or the engine to use, as text.

    Raises:
        UsageError: The engine that was asked for does not agree with the loop.
    """
    if wish in ("loop", "auto") and (wish == "loop" or draw.where == "weights"):
        return Engine("loop")
    one_of("engine", wish.split()[0], ENGINES)
    engine = Engine("tile") if wish == "auto" else Engine.parse(wish)
    if engine.name == "tile" and draw.where == "weights":
        return Engine("loop")
    if agrees(problem, draw, layers, engine):
        return engine
    if wish == "auto":
        return Engine("loop")
    raise UsageError(
        f"engine {wish!r} does not give what the loop gives on layer {layers[0].name!r}, or the model does not run "
        "under it; use engine='auto'."
    )


def fastest(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], block: int, copies: int, most: int | None = None
) -> Engine:
    """The engine that runs a copy of a draw in the least time, among those that agree with the loop.

    Engines and memory layouts are tried with few copies in one call, then the best of them with fewer and more,
    until looking has cost :data:`WORTH` of what the copies will.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        block: Copies in a block.
        copies: Copies to come, over all seeds.
        most: Copies in one call at most.
    """
    start = time.perf_counter()
    step = 2 if draw.antithetic else 1
    most = max(most or 100 * block, step)
    taken: dict[Engine, float] = {}

    def attempt(engine: Engine) -> None:
        spent = time.perf_counter() - start
        enough = bool(taken) and spent > max(LITTLE, WORTH * copies * min(taken.values()))
        if engine not in taken and not enough and agrees(problem, draw, layers, engine):
            taken[engine] = _seconds(problem, draw, layers, engine, block)

    attempt(Engine("loop", copies=step))
    few = max(min(most, block if min(taken.values()) < SHORT else 2), step)
    for engine in _candidates(problem, step, few):
        attempt(engine)
    best = min(taken, key=lambda e: taken[e])
    if best.name != "loop":
        several = len(layers) == 1 and (draw.where == "weights" or layers[0].calls == 1)
        sizes = [*([block * 5, block * 20] if several else []), block // 2, block, block // 5, 1]
        if taken[best] > SHORT:
            sizes.sort(key=lambda n: abs(n - few))
        for size in (n for n in sizes if step <= n <= most and n % step == 0):
            attempt(Engine(best.name, best.replay, best.layout, size))
    return min(taken, key=lambda e: taken[e])


def _candidates(problem: Runnable, one: int, few: int) -> Iterator[Engine]:
    """Engines in the order of what they promise."""
    images = any(t.ndim == 4 and t.is_floating_point() for t in tensors(problem.inputs))
    for layout in ("channels_last", "") if images else ("",):
        yield Engine("vmap", True, layout, few)
        yield Engine("loop", True, layout, one)
        yield Engine("tile", False, layout, few)
        yield Engine("vmap", False, layout, few)


def _seconds(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine, block: int) -> float:
    """Seconds per copy: the better of two calls, after one to warm up."""
    parts = next(calls(range(engine.copies), block, draw.antithetic, engine.copies))
    prefix = record(problem, draw, layers, engine.layout) if engine.replay else None
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run(problem, draw, layers, parts, TRIAL, engine, prefix)
        found.append(time.perf_counter() - start)
    return min(found[1:]) / sum(part.copies for part in parts)


def agrees(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine | str) -> bool:
    """Whether an engine reproduces the loop on a trial block."""
    engine = Engine.parse(engine) if isinstance(engine, str) else engine
    if engine.name == "loop" and not engine.replay and not engine.layout:
        return True
    if engine.name == "tile" and not _tileable(problem, draw, layers):
        return False
    if draw.where == "weights" and draw.share == "sample":
        return False
    trial, block = Draw(draw.where, draw.injection, share=draw.share, sigma=1.0), Block(0, 2)
    try:
        prefix = record(problem, draw, layers, engine.layout) if engine.replay else None
        twice = range(2 if engine.replay else 1)
        found = [run(problem, trial, layers, block, TRIAL, engine, prefix).losses for _ in twice]
    except Exception:
        return False
    names = tuple(layer.name for layer in layers)
    looped = problem.memo(
        ("trial", str(trial), names), lambda: run(problem, trial, layers, block, TRIAL, "loop").losses
    )
    return all(torch.allclose(f, looped, rtol=1e-4, atol=1e-5, equal_nan=True) for f in found)


def _tileable(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    own = problem.loss_per == "sample" and all(layer.credit == "sample" for layer in layers)
    return own and draw.where == "activations"
