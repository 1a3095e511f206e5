"""Which engines agree with the loop, and how fast are they?"""

from __future__ import annotations

import math
from typing import Any

from gradprobe.checkup import register
from gradprobe.checkup.case import Case, Unit
from gradprobe.checkup.finding import Verdict, named, ok, warning
from gradprobe.core.errors import UsageError
from gradprobe.engine.engines import NAMES, Engine
from gradprobe.engine.preflight import fastest, seconds_per_copy

MOST = 6
"""Units that are timed; of more, these many are spread evenly over the model."""

BLOCK = 10
"""Copies in a block, as a probe has by default."""

CHOSEN = "as chosen"

COPIES = 5000
"""Copies that a choice of engine is made for: those of a probe by default, over its seeds."""


@register("engines", summary="vmap, tile and loop agree; their speed", per="problem", order=13)
def check(case: Case) -> Verdict | None:
    """Time every engine that gives what the loop gives, for some of the units, and choose as a probe would."""
    units = [case.units[round(i)] for i in _spread(len(case.units))]
    if not units:
        return None
    found, failed = {}, {}
    for draw, layers in units:
        key = f"{draw.where} of {', '.join(x.name for x in layers)}"
        try:
            found[key] = _timed(case, (draw, layers))
        except UsageError as error:
            failed[key] = str(error)
    value = {"units": found, "failed": failed}
    if failed:
        return warning(f"{named(list(failed))} cannot be run: {next(iter(failed.values()))}", value)
    used = [_kind(u["used"]) for u in found.values()]
    counts = ", ".join(f"{name} for {used.count(name)}" for name in dict.fromkeys(used))
    speeds = "; ".join(f"{name} {_range(found, name)}" for name in (*NAMES, CHOSEN))
    return ok(f"of {len(used)} units tried, {counts}; copies per second: {speeds}.", value)


def _spread(count: int) -> list[float]:
    if count <= MOST:
        return [float(i) for i in range(count)]
    return [i * (count - 1) / (MOST - 1) for i in range(MOST)]


def _timed(case: Case, unit: Unit) -> dict[str, Any]:
    """Copies per second by engine, None where it does not agree with the loop, and the engine to use."""
    draw, layers = unit
    speeds: dict[str, float | None] = {}
    for name in NAMES:
        seconds = seconds_per_copy(case.problem, draw, layers, Engine(name, copies=BLOCK), BLOCK)
        speeds[name] = None if seconds == math.inf else 1 / seconds
    used = fastest(case.problem, draw, layers, BLOCK, COPIES)
    speeds[CHOSEN] = 1 / seconds_per_copy(case.problem, draw, layers, used, BLOCK)
    return {"copies_per_second": speeds, "used": str(used)}


def _kind(engine: str) -> str:
    """An engine without its numbers and layout: "traced loop"."""
    name, *words = engine.split()
    return f"traced {name}" if "graph" in words else name


def _range(found: dict[str, Any], name: str) -> str:
    speeds = [u["copies_per_second"][name] for u in found.values()]
    mine = [s for s in speeds if s is not None]
    without = f" (not for {len(speeds) - len(mine)})" if len(mine) < len(speeds) else ""
    if not mine:
        return "does not agree or does not serve"
    return f"{min(mine):,.0f} to {max(mine):,.0f}{without}" if len(mine) > 1 else f"{mine[0]:,.0f}{without}"
