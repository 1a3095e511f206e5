"""Can derivatives of the losses along noise in a layer be taken by forward-mode differentiation?"""

from __future__ import annotations

import re

from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.run import run

_WORDS = ("forward ad", "forward-mode", "forward mode", "jvp")
"""What torch's refusals speak of."""

_OPERATION = re.compile(r"forward AD with (\S+) that")


def not_derivable(problem: Runnable, draw: Draw, layer: Layer) -> str:
    """Why a draw's derivatives cannot be taken in a layer; empty if they can.

    One copy is run, once for each layer: what follows the layer needs forward-mode rules.

    Args:
        problem: The problem.
        draw: A draw that measures derivatives.
        layer: One of the problem's layers.
    """
    kind = Draw(draw.where, "layerwise", share=draw.share, sigma=1.0, measure=draw.measure)

    def attempt() -> str:
        try:
            run(problem, kind, [layer], Block(0, 1), Streams(0, 0, "preflight"))
        except (NotImplementedError, RuntimeError) as error:
            text = str(error)
            if not any(word in text.lower() for word in _WORDS):
                raise
            found = _OPERATION.search(text)
            what = f"{found[1]} has" if found else "a custom autograd function of the model has"
            return f"{what} no forward-mode derivative (jvp); use lr or es, which need values alone"
        return ""

    return str(problem.once(("derivable", str(kind), layer.name), attempt))
