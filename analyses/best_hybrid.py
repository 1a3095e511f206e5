"""Which hybrid is best, and what does it save?

On both shipped checkpoints: full-forward equivalents that LR, ES and the paper's hybrid need for a whole-model cosine
of 0.5, 0.8 and 0.9, each with equal copies per layer and each with its own best shares, and what the best mapping of
layers to methods needs (gp.plan). Costs are predicted from one probe; the plan is then run on other seeds and
measured. Every layer is rescaled to unit gain throughout. The measured cosine is the pooled one, of moments averaged
over seeds and whole estimates, as the predicted one is; its interval is a jackknife over seeds.

    python analyses/best_hybrid.py --out figures/best_hybrid
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

import gradprobe as gp

METHODS = "lr,es,hybrid"
CHECKPOINTS = ("early", "trained")
TARGETS = (0.5, 0.8, 0.9)
PREDICTED = ("predicted", "predicted_low", "predicted_high")
FRESH = 4000
"""First seed of the measurement; planning has seeds from 0 on."""


def planned(ds: Any, target: float) -> tuple[gp.Plan, dict[str, Any]]:
    """The plan for a target, and its row of the table."""
    plan = gp.plan(ds, cosine=target, methods="lr,es")
    row: dict[str, Any] = {"target": target, "plan": plan.cost}
    for rival in plan.rivals:
        row |= {f"{rival.method}, equal": rival.equal, f"{rival.method}, best shares": rival.best}
    equal = [x.equal for x in plan.rivals if x.equal is not None]
    shares = [x.best for x in plan.rivals if x.best is not None]
    row["plan / best equal"] = plan.cost / min(equal) if equal else math.nan
    row["plan / best shares"] = plan.cost / min(shares) if shares else math.nan
    ends = [math.nan if x is None else x for x in (plan.cosine, plan.low, plan.high)]
    return plan, row | dict(zip(PREDICTED, ends, strict=True))


def within(row: dict[str, Any]) -> bool:
    """Whether measured minus predicted is 0 within the 95 % interval of the difference."""
    halves = [(row[f"{name}_high"] - row[f"{name}_low"]) / 2 for name in ("predicted", "measured")]
    return abs(row["measured"] - row["predicted"]) <= math.hypot(*halves)


def measured(problem: gp.Problem, plan: gp.Plan, seeds: int, copies: int) -> dict[str, float]:
    """Pooled cosine of single whole estimates on fresh seeds, with interval."""
    ds = gp.probe(problem, [plan], copies=copies, block=1, seeds=range(FRESH, FRESH + seeds))
    found = gp.stats.predict(gp.stats.alignment(ds, over="model"), 1).isel(estimator=0)
    ends = {"measured": "cosine", "measured_low": "cosine_low", "measured_high": "cosine_high"}
    return {name: float(found[key]) for name, key in ends.items()}


def analyse(
    checkpoint: str, copies: int, seeds: int, fresh: int, estimates: int, targets: tuple[float, ...]
) -> pd.DataFrame:
    """All rows of one checkpoint."""
    problem = gp.load_problem(checkpoint=checkpoint)
    ds = gp.probe(problem, METHODS, copies=copies, seeds=seeds, reference="smoothed")
    rows = []
    for target in targets:
        plan, row = planned(ds, target)
        print(f"\n{checkpoint}: {plan}", flush=True)
        row |= measured(problem, plan, fresh, estimates)
        print(
            f"measured: {row['measured']:.3f} [{row['measured_low']:.3f}, {row['measured_high']:.3f}]",
            flush=True,
        )
        row["within"] = within(row)
        rows.append({"checkpoint": checkpoint, **row})
    return pd.DataFrame(rows)


def main(
    copies: Annotated[int, typer.Option(help="Copies of the probe that plans.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Seeds of the probe that plans.")] = 5,
    fresh: Annotated[int, typer.Option(help="Other seeds, on which plans are measured.")] = 25,
    estimates: Annotated[int, typer.Option(help="Whole estimates on each of them.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("figures/best_hybrid"),
    smoke: Annotated[
        bool, typer.Option("--smoke", help="The trained one alone, 60 copies, 3 seeds, a cosine of 0.2.")
    ] = False,
) -> None:
    """Plan, measure, and write the table."""
    sizes = (60, 3, 3, 2, (0.2,)) if smoke else (copies, seeds, fresh, estimates, TARGETS)
    checkpoints = CHECKPOINTS[1:] if smoke else CHECKPOINTS
    table = pd.concat([analyse(checkpoint, *sizes) for checkpoint in checkpoints], ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "best_hybrid.csv", index=False)
    print(f"\nFull-forward equivalents of one estimate\n{table.round(3).T.to_string(header=False)}")
    print(f"wrote {out / 'best_hybrid.csv'}")


if __name__ == "__main__":
    typer.run(main)
