"""Choosing an engine: tile where it gives what the loop gives, the loop everywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.run import run

ENGINES = ("auto", "loop", "tile", "vmap")


def choose_engine(problem: Runnable, draw: Draw, layers: Sequence[Layer], wish: str = "auto") -> str:
    """The engine for a draw on these layers.

    A fast engine is taken only if two copies of unit noise give the same losses as the loop, within 1e-4 of
    their size (float32 forwards of another batch size differ by about 1e-6).

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        wish: ``"auto"`` (tile, else the loop), or the engine to use.

    Returns:
        ``"loop"``, ``"tile"`` or ``"vmap"``.

    Raises:
        UsageError: The engine that was asked for does not agree with the loop.
    """
    one_of("engine", wish, ENGINES)
    if wish == "loop" or (draw.where == "weights" and wish in ("auto", "tile")):
        return "loop"
    engine = "tile" if wish == "auto" else wish
    if agrees(problem, draw, layers, engine):
        return engine
    if wish == "auto":
        return "loop"
    raise UsageError(
        f"engine {wish!r} does not give what the loop gives on layer {layers[0].name!r}, or the model does not run "
        "under it; use engine='auto'."
    )


def fastest(problem: Runnable, draw: Draw, layers: Sequence[Layer], copies: int) -> str:
    """The engine that runs a block of a draw in the least time, among those that agree with the loop.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        copies: Copies in a block.

    Returns:
        ``"loop"``, ``"tile"`` or ``"vmap"``: the best of two runs of each after one to warm up.
    """
    able = ["loop", *(e for e in ("tile", "vmap") if agrees(problem, draw, layers, e))]
    if len(able) == 1:
        return "loop"
    taken = {engine: min(_times(problem, draw, layers, copies, engine)[1:]) for engine in able}
    return min(taken, key=lambda engine: taken[engine])


def _times(problem: Runnable, draw: Draw, layers: Sequence[Layer], copies: int, engine: str) -> list[float]:
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run(problem, draw, layers, Block(0, copies), Streams(0, 0, "preflight"), engine)
        found.append(time.perf_counter() - start)
    return found


def agrees(problem: Runnable, draw: Draw, layers: Sequence[Layer], engine: str) -> bool:
    """Whether an engine reproduces the loop on a trial block."""
    if engine == "tile" and not _tileable(problem, draw, layers):
        return False
    if draw.where == "weights" and draw.share == "sample":
        return False
    trial = Draw(draw.where, draw.injection, share=draw.share, sigma=1.0)
    block, streams = Block(0, 2), Streams(0, 0, "preflight")
    try:
        fast = run(problem, trial, layers, block, streams, engine).losses
    except Exception:
        return False
    looped = run(problem, trial, layers, block, streams, "loop").losses
    return bool(torch.allclose(fast, looped, rtol=1e-4, atol=1e-5, equal_nan=True))


def _tileable(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    own = problem.loss_per == "sample" and all(layer.credit == "sample" for layer in layers)
    return own and draw.where == "activations"
