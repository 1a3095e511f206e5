"""Layers that the model itself runs in lower precision."""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok, warning


@register("autocast", summary="autocast inside the forward", per="problem", order=11)
def check(case: Case) -> Verdict | None:
    """Name layers that run under autocast; perturbed weights are new tensors, so its cache of casts holds none."""
    found = {x.name: [s for s in case.walked.calls.get(x.name, ()) if s.autocast] for x in case.layers}
    names = [name for name, seen in found.items() if seen]
    if not names:
        return None
    types = sorted({str(s.dtype).removeprefix("torch.") for seen in found.values() for s in seen})
    value = {"layers": names, "types": types}
    if types == ["float32"] or types == ["float64"]:
        return ok(f"{named(names)} runs under autocast, in {types[0]}.", value)
    return warning(
        f"{named(names)} runs under autocast ({', '.join(types)}): noise smaller than the spacing of these numbers "
        "is rounded away and rules work outside of autocast; switch autocast off in the model's forward.",
        value,
    )
