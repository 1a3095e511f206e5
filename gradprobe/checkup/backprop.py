"""Is backprop's gradient the derivative of this loss?"""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, warning
from gradprobe.checkup.noise import reaches
from gradprobe.checkup.slope import Line, Slopes, compare, make_line, one_step
from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer


@register("backprop", summary="backprop is the derivative of the loss", per="layer", order=40, quick=True)
def check(case: Case, layer: Layer) -> Verdict:
    """Hold <g, v> against a central difference along a random direction v of the layer's parameters.

    A full look does so in float64 where the model runs in it. A quick look takes one difference in the model's own
    precision, along the gradient and a random direction in equal parts, and looks closer only if that disagrees
    by more than rounding can explain.
    """
    names = layer.parameters
    if case.quick or case.precise is None:
        line = make_line(case.problem, {n: case.gradient[n] for n in names}, case.clean)
        found = one_step(line, line.steps[0])
        if found.verdict != "differs":
            return _said(case, layer, line, found)
        if case.precise is None:
            return _said(case, layer, line, compare(line))
    assert case.precise is not None
    line = make_line(case.precise, {n: case.precise_gradient[n] for n in names}, case.precise_clean)
    return _said(case, layer, line, compare(line))


def _felt(case: Case, layer: Layer) -> bool:
    """Whether some noise that is asked for in a layer, or much larger noise, moves a loss."""
    wheres = [w for w in ("activations", "weights") if case.units_of(layer, w)]
    try:
        return any(reaches(case, layer, w) for w in wheres if w == "weights" or layer.activations)
    except UsageError:
        return False


def _cause(case: Case, layer: Layer) -> str:
    """Why backprop may differ from the slope, as text."""
    for path in layer.modules:
        module = case.problem.twin.get_submodule(path)
        for option in ("padding_idx", "max_norm"):
            if getattr(module, option, None) is not None:
                return f"{option} of {path!r} is a rule that backprop does not see"
    return "a surrogate gradient, a detach or a backward of its own"


def _said(case: Case, layer: Layer, line: Line, found: Slopes) -> Verdict:
    off = abs(found.found - found.expected) / (line.scale or 1.0)
    value = {
        "verdict": found.verdict,
        "backprop": found.expected,
        "difference": found.found,
        "step": found.step,
    }
    value |= {"cell": f"{off:.0e}" if found.verdict == "agrees" else found.verdict}
    pair = f"backprop {found.expected:.3g}, central difference {found.found:.3g}"
    if found.verdict == "differs" and not line.scale:
        return warning(
            f"backprop gives exactly 0 for layer {layer.name!r} although the loss depends on it ({pair}), as behind "
            "a detach or no_grad: its cosine with the reference bp is not defined; hold estimates against each "
            "other, or take the detach out.",
            value,
        )
    if found.verdict == "differs":
        return warning(
            f"backprop is not the derivative of this loss in layer {layer.name!r} ({pair} at every step): "
            f"{_cause(case, layer)}; against the reference bp, ceilings say how near estimates come to that field, "
            "not to the slope of the loss; reference='smoothed' is an independent run there.",
            value,
        )
    if not line.scale and found.verdict in ("agrees", "unresolved") and _felt(case, layer):
        return warning(
            f"backprop gives exactly 0 for layer {layer.name!r} although noise there moves the loss: a threshold, a "
            "rounding or a choice, flat wherever it does not jump, comes after it; its cosine with the reference bp "
            "is not defined, and reference='smoothed' is an independent run there.",
            value | {"verdict": "flat", "cell": "flat"},
        )
    return ok(f"{_WORDS[found.verdict]} in layer {layer.name!r} ({pair}).", value)


_WORDS = {
    "agrees": "backprop is the derivative of the loss",
    "kink": "backprop is the derivative of the loss at small steps only: there are kinks (ReLU, max) near",
    "corner": "the loss has a bend exactly here, and backprop's slope lies between those of its sides",
    "unresolved": "backprop and a central difference cannot be told apart above rounding",
}
