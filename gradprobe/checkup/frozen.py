"""Layers that training leaves alone."""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok


@register("frozen", summary="layers with requires_grad=False are probed like others", per="problem", order=7)
def check(case: Case) -> Verdict | None:
    """Name layers whose parameters ask for no gradient; their estimates are measured all the same."""
    asks = {name: p.requires_grad for name, p in case.problem.module.named_parameters()}
    names = [x.name for x in case.layers if not any(asks.get(p, True) for p in x.parameters)]
    if not names:
        return None
    return ok(
        f"{named(names)} has requires_grad=False and is probed like the others; leave it out with layers=.",
        {"layers": names},
    )
