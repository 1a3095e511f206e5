"""Choosing an engine: tile where it gives what the loop gives, the loop everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.run import run

ENGINES = ("auto", "loop", "tile")


def choose_engine(problem: Runnable, draw: Draw, layers: Sequence[Layer], wish: str = "auto") -> str:
    """The engine for a draw on these layers.

    Tile is taken if every layer is credited with its samples' own losses and two copies of unit noise give
    the same losses as the loop, within 1e-4 of their size (float32 forwards of another batch size differ by
    about 1e-6).

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        wish: ``"auto"``, ``"loop"`` or ``"tile"``.

    Returns:
        ``"loop"`` or ``"tile"``.

    Raises:
        UsageError: Tile was asked for and does not agree with the loop.
    """
    one_of("engine", wish, ENGINES)
    if draw.where == "weights" or wish == "loop":
        return "loop"
    if tile_agrees(problem, draw, layers):
        return "tile"
    if wish == "tile":
        raise UsageError(
            f"engine 'tile' does not serve layer {layers[0].name!r}: its samples are not independent, or the "
            "model depends on the batch size; use engine='auto'."
        )
    return "loop"


def tile_agrees(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> bool:
    """Whether tile reproduces the loop on a trial block."""
    if problem.loss_per != "sample" or any(layer.credit != "sample" for layer in layers):
        return False
    trial = Draw(draw.where, draw.injection, share=draw.share, sigma=1.0)
    block, streams = Block(0, 2), Streams(0, 0, "preflight")
    try:
        tiled = run(problem, trial, layers, block, streams, "tile").losses
    except Exception:
        return False
    looped = run(problem, trial, layers, block, streams, "loop").losses
    return bool(torch.allclose(tiled, looped, rtol=1e-4, atol=1e-5, equal_nan=True))
