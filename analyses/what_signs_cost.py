"""What do signs cost, and do they make an estimate more stable?

ALR takes the sign of the noise and the sign of the layer's input. Both read-outs with one sign only share its draw,
so one run tells which of them costs what: ceilings (bias), prices (copies), and bytes to keep for each copy. Then
Sta. of A-Hybrid beside that of Hybrid: how much is the curvature of a rising curve, and what is left once ceilings
are equal.

    python analyses/what_signs_cost.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import xarray as xr

import gradprobe as gp

LR, NOISE, INPUT, ALR = "lr", "lr(encode=sign-noise)", "lr(encode=sign-input)", "alr"
PAIR = ("hybrid", "a-hybrid")


def bias(ds: xr.Dataset) -> pd.DataFrame:
    """Ceiling, and price relative to LR's, of each encoding in each layer."""
    law = gp.stats.alignment(ds)
    rows = []
    for layer in law["layer"].values:
        base = float(law["price"].sel(layer=layer, estimator=LR))
        for method in (LR, NOISE, INPUT, ALR):
            cell = law.sel(layer=layer, estimator=method)
            row: dict[str, Any] = {"layer": str(layer), "method": method, "state": str(cell["state"].values)}
            row |= {name: float(cell[name]) for name in ("ceiling", "ceiling_low", "ceiling_high", "price")}
            rows.append(row | {"price / LR's": row["price"] / base})
    return pd.DataFrame(rows)


def stability(ds: xr.Dataset) -> pd.DataFrame:
    """Sta. of Hybrid and A-Hybrid, the share of it that is curvature, and both at a ceiling of 1."""
    law, sta = gp.stats.alignment(ds), gp.stats.stability(ds)
    floor, around = gp.stats.stability_floor(ds), gp.stats.stability(ds, around="law")
    band = gp.stats.bands(gp.stats.cosine(ds).isel(copies=-1))["std"]
    rows = []
    for layer in law["layer"].values:
        for method in PAIR:
            at = {"layer": layer, "estimator": method}
            ceiling = float(law["ceiling"].sel(at).where(law["state"].sel(at) == "resolved"))
            mean, least = float(sta.sel(at).mean()), float(floor.sel(at))
            row: dict[str, Any] = {"layer": str(layer), "method": method, "ceiling": ceiling, "Sta.": mean}
            row |= {"floor": least, "curvature": min(least**2 / mean**2, 1.0)}
            row |= {"around the law": float(around.sel(at).mean()), "std at the end": float(band.sel(at))}
            scaled = ("Sta.", "around the law", "std at the end")
            rows.append(row | {f"{name} / ceiling": row[name] / ceiling for name in scaled})
    return pd.DataFrame(rows)


def more_stable(table: pd.DataFrame, ds: xr.Dataset) -> pd.DataFrame:
    """A-Hybrid's Sta. minus Hybrid's, each divided by its ceiling: mean and t interval over seeds."""
    ceiling = table.set_index(["method", "layer"])["ceiling"].to_xarray()
    sta = gp.stats.stability(ds)
    each = [sta.sel(estimator=m, drop=True) / ceiling.sel({"method": m}, drop=True) for m in PAIR]
    found = gp.stats.bands(each[1] - each[0])
    return found[["mean", "low", "high"]].to_dataframe()[["mean", "low", "high"]]


def memory(problem: gp.Problem, layers: list[str], copies: int) -> pd.DataFrame:
    """Kibibytes to keep until the losses are known, for all copies of a batch, without drawing noise again."""
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Any:
        return lambda module, args, output: sizes.update({name: (args[0].numel(), output.numel())})

    hooks = [problem.twin.get_submodule(name).register_forward_hook(note(name)) for name in layers]
    problem.twin(problem.inputs)
    for hook in hooks:
        hook.remove()
    rows = []
    for layer, (inputs, outputs) in sizes.items():
        for injection, kept in (
            ("layerwise", 1),
            ("joint", copies),
        ):  # inputs differ between copies, or do not
            bits = {LR: (32, 32), NOISE: (1, 32), ALR: (1, 1)}
            row: dict[str, Any] = {"layer": layer, "injection": injection}
            for method, (noise, signal) in bits.items():
                row[method] = (copies * outputs * noise + kept * inputs * signal) / 8 / 1024
            rows.append(row)
    return pd.DataFrame(rows)


def main(
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 10,
    kept: Annotated[int, typer.Option(help="Copies behind one direction, for the table of memory.")] = 200,
    runs: Annotated[Path | None, typer.Option(help="Folder that keeps the runs.")] = None,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/what_signs_cost"),
    smoke: Annotated[bool, typer.Option("--smoke", help="80 copies, 3 seeds.")] = False,
) -> None:
    """Probe both shipped checkpoints, print the tables and draw them."""
    copies, seeds = (80, 3) if smoke else (copies, seeds)
    every, tables = {}, {}
    for checkpoint in ("early", "trained"):
        problem = gp.load_problem(checkpoint=checkpoint)
        where = None if runs is None else runs / checkpoint
        ds = gp.probe(problem, [LR, NOISE, INPUT, ALR, *PAIR], copies=copies, seeds=seeds, out=where)
        every[checkpoint], tables[checkpoint] = ds, bias(ds)
        print(f"\n{checkpoint}: ceilings and prices\n{tables[checkpoint].round(3).to_string(index=False)}")
        found = stability(ds)
        print(f"\n{checkpoint}: Sta. over 10 to {copies} copies\n{found.round(4).to_string(index=False)}")
        difference = more_stable(found, ds).round(4).to_string()
        print(f"\n{checkpoint}: Sta. / ceiling, A-Hybrid minus Hybrid\n{difference}")
    names = [str(name) for name in dict.fromkeys(ds["layer"].values)]
    table = memory(problem, names, kept)
    total = table.groupby("injection")[[LR, NOISE, ALR]].sum()
    print(f"\nKiB kept for {kept} copies, all layers (noise and input exact, or one bit each)")
    print(total.round(1).to_string())
    gp.plots.signs(every, save=out)
    worst = max((1 - t[t["method"] == NOISE]["ceiling"]).abs().max() for t in tables.values())
    print(
        f"\nwrote {out}.png, {out}.pdf and {out}.json; sign of the noise alone: ceilings within {worst:.3f} of 1"
    )


if __name__ == "__main__":
    typer.run(main)
