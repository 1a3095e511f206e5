"""The engine of an estimate, where nobody chose one and nothing is timed: the same call gives the same bits again."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import Engine
from gradprobe.engine.operations import Operations, count_operations
from gradprobe.engine.preflight import LOOPED, agrees
from gradprobe.layers.find import find_layers
from gradprobe.problems.problem import Problem

MANY = Engine("vmap", copies=100)
"""Engine of blocks of at least so many copies; forty times faster than tiles in a network's last layer."""

SEVERAL = 16
"""Copies of weight noise from which another engine than the loop is looked for."""

CALL = 2e6
"""Multiply-adds that a CPU does in the time that a forward's operations take besides: 100 microseconds."""

SLOWER = {"matrices": 1.5, "images": 6.0}
"""How much longer a copy's operations take where one call serves all copies with weights of their own: products of
matrices leave the cache; convolutions come in groups, for which there is no fast code on a CPU."""

AT_ONCE = 2**20
"""Weights in one vectorised call, which should stay in the cache."""


def usual_engine(problem: Problem, draw: Draw, layers: Sequence[Layer], copies: int) -> Engine | str:
    """The engine for a block: vmap, which runs only what follows the noise, unless a loop does less.

    Weight noise on a CPU: one forward after another, with the channels of images last, or all together, whichever has
    the fewer multiply-adds after what is known of either's overhead; counted once, not timed. Other noise: vmap for
    many copies, else what :func:`~gradprobe.engine.preflight.choose_engine` chooses.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        copies: Copies in the block.
    """

    def choose() -> Engine | str:
        for engine in _candidates(problem, draw, layers, copies):
            if agrees(problem, draw, layers, engine):
                return engine
        return "auto"

    return problem.once(("usual", *draw.kind(layers), copies), choose)


def _candidates(problem: Problem, draw: Draw, layers: Sequence[Layer], copies: int) -> list[Engine]:
    """Engines in the order of what they promise."""
    many = [MANY] if copies >= MANY.copies else []
    shared = draw.where == "weights" and draw.share == "batch"
    if not shared or problem.device.type != "cpu" or copies < SEVERAL:
        return many
    found = problem.once("counted", lambda: _counted(problem))
    if found is None:
        return many
    images = any(t.ndim == 4 and t.is_floating_point() for t in tensors(problem.inputs))
    layout, kind = ("channels_last", "images") if images else ("", "matrices")
    loop, vmap = found.whole + CALL, found.of(draw, layers) * SLOWER[kind]
    if loop < vmap:
        return [Engine("loop", layout=layout, copies=LOOPED), Engine("loop", copies=LOOPED)]
    numbers = sum(layer.numel for layer in layers)
    return [Engine("vmap", copies=max(min(copies, AT_ONCE // numbers), 2))]


def _counted(problem: Problem) -> Operations | None:
    """What a forward's operations cost, if it can be followed."""
    try:
        return count_operations(problem, find_layers(problem).layers)
    except UsageError:
        return None
