"""Choosing an engine: one that gives what the loop gives, and the fastest of those."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import in_layout, make_noise
from gradprobe.engine.engines import NAMES, Engine
from gradprobe.engine.graph import Graph
from gradprobe.engine.memory import free_unused, is_out_of_memory
from gradprobe.engine.parts import calls
from gradprobe.engine.run import execute, run
from gradprobe.engine.sites import Forward

ENGINES = ("auto", *NAMES)

TRIAL = Streams(0, 0, "preflight")

WORTH = 0.01
"""Of the time that a unit will take, what looking for a faster engine may cost."""

LITTLE = 0.02
"""Seconds that looking may always cost."""

TRACING = 2.0
"""Seconds that the loop must take in all for tracing to pay: it loads much of torch, once in a process."""

TRACED = 16
"""Copies that memory must have room for before tracing is tried: it takes some of them, and 40 MiB of torch."""

LOOPED = 10
"""Copies in one call of the loop: what a call costs besides is shared."""

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
        wish: ``"auto"`` (tile, or vmap for weights of each sample, else the loop), or the engine to use, as text.

    Raises:
        UsageError: The engine that was asked for does not agree with the loop.
    """
    one_of("engine", wish.split()[0], ENGINES)
    usual = Engine("vmap" if draw.alone else "tile")  # a loop over copies and samples is the last resort
    engine = usual if wish == "auto" else Engine.parse(wish)
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

    Engines and memory layouts are tried in the order of what they promise, then the best of them with other
    numbers of copies in one call, until looking has cost :data:`WORTH` of what the copies will.

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
    plain = Engine("loop", copies=step)
    taken = {plain: seconds_per_copy(problem, draw, layers, plain, block)}
    if taken[plain] == math.inf:
        return plain

    def attempt(engine: Engine) -> None:
        spent = time.perf_counter() - start
        if engine not in taken and spent <= max(LITTLE, WORTH * copies * min(taken.values())):
            taken[engine] = seconds_per_copy(problem, draw, layers, engine, block)

    graphs = copies * min(taken.values()) > TRACING and most >= TRACED
    images = any(t.ndim == 4 and t.is_floating_point() for t in tensors(problem.inputs))
    layouts = ("channels_last", "") if images else ("",)
    looped = max(min(LOOPED, most - most % step), step)
    attempt(Engine("loop", graphs, layouts[0], looped))
    several = len(layers) == 1 and (draw.where == "weights" or layers[0].calls == 1)
    if min(taken.values()) < SHORT:
        sizes = [block, *([5 * block, 20 * block] if several else []), block // 2]
    else:
        sizes = [2, block // 2, block]
    sizes = [n for n in dict.fromkeys(sizes) if step <= n <= most and n % step == 0] or [step]
    for layout in layouts:
        for name, graph in (("vmap", graphs), ("tile", False), ("vmap", False)):
            attempt(Engine(name, graph, layout, sizes[0]))
        attempt(Engine("loop", graphs, layout, looped))
    best = min(taken, key=lambda e: taken[e])
    for size in sizes[1:] if best.name != "loop" else (max(looped // (2 * step) * step, step),):
        attempt(replace(best, copies=size))
    return min(taken, key=lambda e: taken[e])


def seconds_per_copy(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine, block: int
) -> float:
    """Seconds per copy: the better of two calls; infinite if the engine does not serve this draw.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        engine: The engine, with the number of copies in one call.
        block: Copies in a block.
    """
    if not agrees(problem, draw, layers, engine):
        return math.inf
    parts = next(calls(range(engine.copies), block, draw.antithetic, engine.copies))
    found = []
    try:
        graph = traced(problem, draw, layers, engine)
        for _ in range(2):
            start = time.perf_counter()
            run(problem, draw, layers, parts, TRIAL, engine, graph)
            _wait(problem)
            found.append(time.perf_counter() - start)
    except UsageError:
        return math.inf
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_unused()
        return math.inf
    return min(found) / sum(part.copies for part in parts)


def _wait(problem: Runnable) -> None:
    """Wait for a GPU: what was asked of it may not have begun."""
    if problem.device.type == "cuda":
        torch.cuda.synchronize(problem.device)


def agrees(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine | str) -> bool:
    """Whether an engine reproduces the loop on two copies, with unit noise and with the draw's own.

    Unit noise reaches what small noise leaves within rounding.
    """
    engine = replace(Engine.parse(engine) if isinstance(engine, str) else engine, copies=0)
    if engine == Engine("loop"):
        return True
    if engine.name == "tile" and not _tileable(problem, draw, layers):
        return False
    return problem.memo(
        ("agrees", engine, *draw.kind(layers)), lambda: _agrees(problem, draw, layers, engine)
    )


def _agrees(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine) -> bool:
    some = False
    try:
        graph = traced(problem, draw, layers, engine)
        for unit in (True, False):
            losses = _trial(problem, draw, layers, unit, engine, graph)
            looped = _looped(problem, draw, layers, unit)
            near = 1e-4 * _largest(looped) if draw.derived else 1e-5
            if not torch.allclose(losses, looped, rtol=1e-4, atol=near, equal_nan=True):
                return False
            some = bool(looped.isfinite().any())
            if some and (graph is None or draw.derived):  # the noise of a derivative has one size
                break
    except Exception as error:  # whatever it is: the loop runs then, or says what is wrong
        if is_out_of_memory(error):
            free_unused()
        return False
    return some


def _largest(values: torch.Tensor) -> float:
    """Size of the largest finite value: derivatives may be of any size, and stay exact however small they are."""
    return float(values.nan_to_num(0.0, 0.0, 0.0).abs().amax())


def _looped(problem: Runnable, draw: Draw, layers: Sequence[Layer], unit: bool) -> torch.Tensor:
    """Losses of the trial by the loop."""
    loop = Engine("loop")
    return problem.memo(
        ("looped", unit, *draw.kind(layers)), lambda: _trial(problem, draw, layers, unit, loop, None)
    )


def _trial(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    unit: bool,
    engine: Engine,
    graph: Graph | None,
) -> torch.Tensor:
    """Losses of two copies that no trace has seen, with noise of standard deviation 1 or of the draw's own."""
    noise = in_layout(make_noise(problem, _gaussian(draw), layers, Block(1, 2), TRIAL), engine.layout)
    if unit:
        noise = {site: eps / draw.sigma_of(site[0]) for site, eps in noise.items()}
    forward = Forward(problem, draw, layers, noise, {(layers[0].name, 0)}, graph, engine.layout)
    return execute(forward, engine)[0]


def _gaussian(draw: Draw) -> Draw:
    sigma = 1.0 if draw.derived else 0.01
    return Draw(draw.where, draw.injection, share=draw.share, sigma=sigma, measure=draw.measure)


def traced(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: Engine) -> Graph | None:
    """The traced forward for an engine that runs it; traced once while the problem is frozen.

    Raises:
        UsageError: It cannot be traced.
    """
    if not engine.graph:
        return None
    site = (layers[0].name, 0)

    def trace() -> Graph:
        noise = in_layout(make_noise(problem, _gaussian(draw), layers, Block(0, 2), TRIAL), engine.layout)
        with torch.no_grad():
            return Graph(Forward(problem, draw, layers, noise, {site}, layout=engine.layout))

    return problem.memo(("graph", engine.layout, *draw.kind(layers)), trace, lambda graph: graph.bytes)


def _tileable(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    own = problem.loss_per == "sample" and all(layer.credit == "sample" for layer in layers)
    return own and draw.where == "activations"
