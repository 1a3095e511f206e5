"""Is there room for a copy?"""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, warning
from gradprobe.engine.memory import SHARE, bytes_per_copy, free_memory


@register("size", summary="memory of one copy against what is free", per="problem", order=12)
def check(case: Case) -> Verdict | None:
    """Estimate what one copy needs, for the unit that needs most, and hold it against half of the free memory."""
    needs = {unit[0].name: bytes_per_copy(case.problem, draw, unit) for draw, unit in case.units}
    if not needs:
        return None
    name = max(needs, key=lambda n: needs[n])
    room = int(SHARE * free_memory(case.problem.device))
    value = {"bytes": needs[name], "room": room, "layer": name}
    text = f"one copy needs about {needs[name] / 2**20:,.1f} MiB (layer {name!r}) of {room / 2**20:,.0f} MiB"
    if needs[name] <= room:
        return ok(f"{text}: room for {room // max(needs[name], 1):,} at once.", value)
    return warning(f"{text}, half of what is free: memory may run out; use a smaller batch.", value)
