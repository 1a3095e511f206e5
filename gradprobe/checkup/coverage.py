"""How much of the gradient do the probed layers hold?"""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, warning


@register("coverage", summary="probed share of the gradient's squared length", per="problem", order=4)
def check(case: Case) -> Verdict:
    """Sum |g|^2 over the layers that are probed and over all, and count parameters outside of layers that run."""
    total = sum(case.steepness(x) ** 2 for x in case.every)
    held = sum(case.steepness(x) ** 2 for x in case.layers)
    own = {p for x in case.every for p in x.parameters}
    without = [n for n in case.problem.parameters if n not in own]
    value = {"coverage": held / total if total else 0.0, "without_layer": without}
    if not total:
        return warning(
            "backprop's gradient is 0 in every layer, so no cosine is defined; look for a detach, dead units, or "
            "a loss that is at its minimum.",
            value,
        )
    more = f"; {len(without)} parameters belong to layers that never run" if without else ""
    return ok(f"the layers that are probed hold {held / total:.1%} of |g|^2{more}.", value)
