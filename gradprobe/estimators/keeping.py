"""What the read-outs of a draw need of its noise and of the inputs that it makes noisy: signs, or the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.core.errors import one_of
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import make_family
from gradprobe.engine.signs import STORAGE
from gradprobe.engine.storing import Inputs, Storing
from gradprobe.estimators.readout import ReadOut
from gradprobe.layers import rule_for
from gradprobe.problems.problem import Problem


def check_storage(storage: str) -> None:
    """Refuse what is no way to keep intermediates.

    Raises:
        UsageError: It is none.
    """
    one_of("storage", storage, STORAGE)


def storing(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    storage: str,
    per_sample: bool = False,
) -> Storing:
    """How a draw is kept between its forward and its read-outs, so that these give the same numbers, bit for bit.

    Signs of noise serve where every read-out encodes it, or the score is a function of the sign (Laplace,
    Rademacher). Signs of noisy inputs serve where every read-out encodes them and the layer's rule says which signs
    it needs; samples that are read apart need the inputs themselves.

    Args:
        problem: The problem; no hooks of gradprobe's own are on it.
        draw: The draw.
        layers: The layers that are noisy together.
        readouts: All that read it.
        storage: ``"float32"``, ``"int8"`` or ``"bits"``.
        per_sample: Whether samples are read apart.
    """
    of_signs = getattr(make_family(draw.noise), "of_signs", False) and not draw.derived
    noise = of_signs or all(r.encodes_noise for r in readouts)
    inputs = draw.where == "activations" and not per_sample and all(r.encodes_input for r in readouts)
    served = {path: layer.modules[path] for layer in layers for path in layer.modules}
    modules = {path: problem.twin.get_submodule(path) for path in served}
    plain = {p for p, m in modules.items() if not (m._forward_hooks or m._forward_pre_hooks)}

    def encode(found: Inputs) -> Inputs | None:
        path, args, kwargs = found
        rule = rule_for(modules[path])
        if not rule.keeps or path not in plain:
            return None
        values = problem.memo(("values", path), lambda: problem.local_values(path))
        return path, *rule.kept(modules[path], list(served[path]), values, args, kwargs)

    return Storing(storage, noise, encode if inputs else None)
