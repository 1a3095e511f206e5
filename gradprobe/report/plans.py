"""A plan as tables: what it does in each layer, and what single methods would need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr

from gradprobe.core.copyplan import LayerPlan, Plan, with_ends
from gradprobe.core.errors import UsageError
from gradprobe.report.kinds import TARGET
from gradprobe.stats.planning import plan as make_plan

COLUMNS = ("layer", "method", "copies", "scale", "cost", "share", "cosine")


@dataclass(frozen=True)
class PlanTable:
    """A plan for a report, or why there is none.

    Attributes:
        heading: One line: what it is for, what it costs, what it reaches with its interval; "" without a plan.
        layers: One row for each layer, numbers: ``layer method copies scale cost share cosine low high``.
        rivals: One row for each single method, numbers: ``method equal best times note`` (its cost with equal copies
            in all layers and with its own best shares, or the cosines that these reach within a budget; the plan's
            cost over the best; why it cannot).
        bound: One sentence: what no plan passes.
        notes: Methods that were left out, and what a reader must know besides, one sentence each.
        plan: The plan itself; None if there is none.
        why: One sentence where there is no plan; else "".
    """

    heading: str = ""
    layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    rivals: pd.DataFrame = field(default_factory=pd.DataFrame)
    bound: str = ""
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    why: str = ""


def plan_table(ds: xr.Dataset, cosine: float = TARGET, reference: str = "bp") -> PlanTable:
    """The cheapest mapping of methods to layers for a cosine of the whole model, as tables.

    Args:
        ds: Results.
        cosine: Target of the whole model.
        reference: What the cosine is held against.

    Returns:
        The tables; where there is no such plan (the target is above every ceiling, no price is resolved, there are
        several batches, ...) its ``why`` says so and nothing else is filled.
    """
    try:
        found = make_plan(ds, cosine, reference=reference)
    except UsageError as error:
        return PlanTable(why=str(error))
    rivals = [
        {
            "method": r.method,
            "equal": r.equal,
            "best": r.best,
            "times": found.cost / r.best if r.best else None,
            "note": r.note,
        }
        for r in found.rivals
    ]
    alone = len(found.rivals)
    return PlanTable(
        found.heading(),
        found.table().reset_index(),
        pd.DataFrame(rivals, columns=["method", "equal", "best", "times", "note"]),
        bound_of(found),
        tuple(found.sentences()[alone:]),
        found,
    )


def headers(found: Plan) -> list[str]:
    """Heads of the columns of :func:`cells`."""
    named = {"cost": f"cost ({found.unit})", "cosine": "cosine [95 %]"}
    return [named.get(name, name) for name in COLUMNS]


def cells(row: LayerPlan) -> list[Any]:
    """One row of a plan as text."""
    return [
        row.layer,
        row.method or "none",
        f"{row.copies:,}",
        f"{row.scale:.4g}",
        f"{row.cost:,.4g}",
        f"{row.share:.1%}",
        with_ends(row.cosine, row.low, row.high),
    ]


def bound_of(found: Plan) -> str:
    """One sentence: what no plan of these methods passes."""
    if found.goal == "budget":
        return f"No plan of these methods gets above a cosine of {found.bound:.4f} within the budget."
    return f"No plan of these methods costs less than {found.bound:,.6g} {found.unit}."
