"""Does the layer's local rule carry a cotangent of its output back to the right gradient?"""

from __future__ import annotations

import torch

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, refused
from gradprobe.checkup.walk import Seen
from gradprobe.core.layer import Layer
from gradprobe.layers import rule_for, rule_name
from gradprobe.problems.problem import Problem


@register("rule", summary="the local rule gives backprop's gradient", per="layer", order=30, quick=True)
def check(case: Case, layer: Layer) -> Verdict | None:
    """Pull backprop's own cotangent of the layer's output back by the local rule, and compare with backprop.

    Both do the same arithmetic in another order, so they agree to rounding; half of the digits of the coarsest type
    that is involved are asked for. What activation noise estimates is carried back by this rule.
    """
    if not layer.activations or not case.units_of(layer, "activations") or not case.may_walk:
        return None
    name = " + ".join(dict.fromkeys(rule_name(case.problem.twin.get_submodule(p)) for p in layer.modules))
    seen = [s for s in case.walked.calls[layer.name] if s.cotangent is not None]
    cast = " (it runs under autocast, and a rule does not)" if any(s.autocast for s in seen) else ""
    way = "use weight noise (es) there, leave it out with layers=, or register a layer rule."
    try:
        off = _difference(case, layer, seen)
    except Exception as error:  # whatever it is: an estimate would meet it too
        return refused(
            f"what reaches the output of layer {layer.name!r} cannot be carried back to its parameters{cast} "
            f"({type(error).__name__}: {' '.join(str(error).split())}); {way}",
            {"rule": name},
        )
    value = {"cell": name, "rule": name, "difference": off}
    coarsest = max([torch.finfo(s.dtype).eps for s in seen] + [torch.finfo(case.clean.dtype).eps])
    coarsest = max([coarsest] + [torch.finfo(case.gradient[p].dtype).eps for p in layer.parameters])
    if off <= coarsest**0.5:
        return ok(f"the rule {name!r} of {layer.name!r} gives backprop's gradient.", value)
    return refused(
        f"the local rule {name!r} of layer {layer.name!r} misses backprop's gradient by {off:.0%} of its length{cast}"
        f": estimates by activation noise would be of something else; {way}",
        value,
    )


def _difference(case: Case, layer: Layer, seen: list[Seen]) -> float:
    """Length of what rule and backprop differ by, over the length of all that is summed."""
    sums = {p: torch.zeros_like(case.gradient[p], dtype=torch.float64) for p in layer.parameters}
    scale = case.steepness(layer) ** 2
    for one in seen:
        for parameter, found in _pulled(case.problem, layer, one).items():
            sums[parameter] += found.double()
            scale = max(scale, float((found.double() ** 2).sum()))
    off = sum(float(((sums[p] - case.gradient[p].double()) ** 2).sum()) for p in layer.parameters)
    return (off / scale) ** 0.5 if scale else 0.0


def _pulled(problem: Problem, layer: Layer, seen: Seen) -> dict[str, torch.Tensor]:
    """The cotangent of one call, carried back as an estimate would: parameter -> gradient."""
    call, names = seen.call, layer.modules[seen.call.path]
    assert seen.cotangent is not None
    module = problem.twin.get_submodule(call.path)
    values = problem.memo(("values", call.path), lambda: problem.local_values(call.path))
    pull = rule_for(module).pull_back
    found = pull(module, list(names), values, call.args, call.kwargs or {}, seen.cotangent)
    return {full: found[local] for local, full in names.items()}
