"""Does noise in a layer reach the loss?"""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, refused, warning, worst
from gradprobe.checkup.shake import shake
from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw

LARGE = (1.0, -1.0, 10.0, -10.0, 100.0, -100.0)
"""Sizes of large perturbations, in standard deviations of what they are added to; thresholds have two sides."""


@register("noise", summary="noise in the layer reaches the loss", per="layer", order=20, quick=True)
def check(case: Case, layer: Layer) -> Verdict | None:
    """Put noise on the layer's output, and on its weights, and see whether a loss moves.

    In a quick look, noise of the draw's own size that moves a loss is enough; otherwise perturbations of up to 100
    standard deviations are tried.
    """
    wheres = [w for w in ("activations", "weights") if case.units_of(layer, w)]
    wheres = [w for w in wheres if w == "weights" or layer.activations]
    found = [_look(case, layer, where) for where in wheres]
    verdict = worst(found)
    if verdict is None or verdict.status != "ok":
        return verdict
    return ok(f"noise in {layer.name!r} moves the loss ({' and '.join(wheres)}).", {"cell": "reaches"})


def _look(case: Case, layer: Layer, where: str) -> Verdict:
    what = "output" if where == "activations" else "weights"
    try:
        if reaches(case, layer, where):
            return ok("")
    except UsageError as error:
        return warning(f"noise cannot be put on the {what} of layer {layer.name!r}: {error}")
    value = {"where": where, "gradient": case.steepness(layer)}
    if case.steepness(layer) > 0:
        return refused(
            f"even large noise on the {what} of layer {layer.name!r} does not move the loss although backprop says "
            "it should: the noise is bypassed or overwritten, so estimates there are 0 whatever the gradient is; "
            "leave the layer out with layers=, or look for a cache or a hook that replaces it.",
            value,
        )
    return warning(
        f"even large noise on the {what} of layer {layer.name!r} does not move the loss, and backprop's gradient is "
        "0 there: the branch is dead (a zero gate, dead units, an output that is not used), so no cosine is defined; "
        "leave it out with layers=.",
        value,
    )


def reaches(case: Case, layer: Layer, where: str) -> bool:
    """Whether some noise in a layer moves some loss."""
    unit = case.units_of(layer, where)[0]
    if case.quick and len(unit[1]) == 1 and case.moves(case.shaken(unit)):
        return True
    draw = Draw(where, share="batch" if where == "weights" else "sample")
    return any(case.moves(shake(case.problem, draw, [layer], large=x)) for x in LARGE)
