"""Where does a recursion with signs stop: where the gradient vanishes, or where its own mean field J does?

Theorem 2 of the ALR paper: the projected recursion converges to the zero of J (eq. 5), if there is one. Draws the
gradient's field and those of LR and ALR with their zeros, and where projected descents with decreasing steps ended.

    python analyses/where_it_stops.py --function beale --sigma 0.5
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gradprobe as gp


def main(
    function: Annotated[str, typer.Option(help="Function of two variables, by name.")] = "beale",
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise.")] = 0.5,
    lr: Annotated[float, typer.Option(help="First learning rate of BP and LR.")] = 3e-3,
    decay: Annotated[float, typer.Option(help="The rate of step k is lr / (1 + decay k).")] = 0.005,
    steps: Annotated[int, typer.Option(help="Steps of each walker.")] = 20_000,
    grid: Annotated[int, typer.Option(help="Starts for each variable.")] = 10,
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 4,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/where_it_stops"),
    smoke: Annotated[bool, typer.Option("--smoke", help="20 steps, 2 x 2 starts.")] = False,
) -> None:
    """Find the zeros, run the recursion, compare."""
    steps, grid, seeds = (20, 2, 2) if smoke else (steps, grid, seeds)
    field = gp.field(function, ["lr", "alr"], sigma=sigma, points=11 if smoke else 41)
    stops = field["zero_position"].to_pandas()
    stops = stops.assign(**{k: field[k].values for k in ("zero_field", "stable", "boundary")})
    print(f"{function}, sigma {sigma:g}: where fields vanish\n{stops.round(4).to_string(index=False)}")
    lr_label, alr_label = (str(label) for label in field["field"].values[1:])
    path = gp.descend(
        function,
        ["bp", "lr", "alr"],
        start=grid,
        seeds=seeds,
        steps=steps,
        sigma=sigma,
        lr={"bp": lr, lr_label: lr, alr_label: lr / float(field["shrinks"].sel(field=alr_label))},
        decay=decay,
        bounds="project",
        every=max(steps // 100, 1),
    )
    ended = gp.stats.settled(path, field)
    print(f"\nends of {grid**2 * seeds} walkers, shares within {ended.attrs['radius']:.3g} of a stable point")
    print(ended.to_pandas().round(3).to_string())
    gp.plots.fields(field, path, save=out)
    print(f"wrote {out}.png, {out}.pdf and {out}.json")


if __name__ == "__main__":
    typer.run(main)
