"""Parameters that several modules share."""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok


@register("tied", summary="modules that share parameters are one layer", per="problem", order=8)
def check(case: Case) -> Verdict | None:
    """Name layers that are several modules: their noise is their own, their gradients are summed."""
    names = [x.name for x in case.layers if len(x.modules) > 1]
    if not names:
        return None
    return ok(f"shared parameters make one layer of {named(names)}.", {"layers": names})
