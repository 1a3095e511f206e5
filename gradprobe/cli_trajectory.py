"""``gradprobe trajectory``: how estimators walk on a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradprobe.cli_options import parse_seeds, parse_start, parse_value

if TYPE_CHECKING:
    import xarray as xr


def trajectory(
    function: Annotated[str, typer.Option(help="Function, by name; gradprobe list shows them.")] = "beale",
    estimators: Annotated[str, typer.Option(help="Comma-separated, with options.")] = "bp,lr,alr",
    start: Annotated[
        str | None,
        typer.Option(help="A point (-3,2), several ('-3,2;1,1'), or 10: a grid of 10 for each variable."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of each walker.")] = 1000,
    lr: Annotated[
        str,
        typer.Option(help="Learning rate, {'bp': 1e-4, 'alr': 0.02}, or tuned: the best for each method."),
    ] = "tuned",
    optimizer: Annotated[
        str, typer.Option(help="sgd, adam, 'sgd(momentum=0.9)', any of torch.optim.")
    ] = "sgd",
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies in a step.")] = 16,
    sigma: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise; 0.01 by default.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which: 5, or 0,1,2.")] = "20",
    step: Annotated[str, typer.Option(help="raw, or normalised: every direction has length 1.")] = "raw",
    bounds: Annotated[str | None, typer.Option(help="project: stay in the domain.")] = None,
    clip: Annotated[float | None, typer.Option(help="Longest direction that is not shortened.")] = None,
    decay: Annotated[float, typer.Option(help="The rate of step k is lr / (1 + decay k).")] = 0.0,
    every: Annotated[int, typer.Option(help="Record every so many steps.")] = 1,
    criterion: Annotated[str, typer.Option(help="What tuning looks at: loss, or steps.")] = "loss",
    root_seed: Annotated[int, typer.Option(help="Root of all noise keys.")] = 0,
    radius: Annotated[float | None, typer.Option(help="How near a minimum counts as reached.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("figures/trajectory"),
    animate: Annotated[bool, typer.Option("--animate", help="Write an animation (GIF) too.")] = False,
) -> None:
    """Descend a test function with each method's directions: a table, paths, and how many arrive."""
    from gradprobe.trajectory.descent import descend

    path = descend(
        function,
        estimators,
        start=parse_start(start),
        steps=steps,
        lr=parse_value(lr),
        optimizer=optimizer,
        copies=copies,
        sigma=sigma,
        seeds=parse_seeds(seeds),
        step=step,
        bounds=bounds,
        clip=clip,
        decay=decay,
        every=every,
        criterion=criterion,
        root_seed=root_seed,
    )
    show(path, radius)
    for file in draw(path, radius, out, animate):
        typer.echo(f"wrote {file}")


def show(path: xr.Dataset, radius: float | None) -> None:
    """Print what became of the walkers of each method, and how methods differ from the first."""
    from rich.console import Console
    from rich.table import Table

    from gradprobe import stats

    last = stats.progress(path, radius=radius).isel(step=-1)
    arrived = stats.success(path, radius=radius)
    table = Table(box=None, title=_title(path, arrived), title_justify="left")
    columns = (
        "method",
        "learning rate",
        "last loss, median [10-90 %]",
        "reached [95 %]",
        "stayed",
        "diverged",
    )
    for column in (*columns, "steps to reach", "forwards to reach"):
        table.add_column(column)
    for name in path["estimator"].values:
        end, mine = last.sel(estimator=name), arrived.sel(estimator=name)
        table.add_row(
            str(name),
            f"{float(path['lr'].sel(estimator=name)):.3g}",
            f"{float(end['loss']):.3g} [{float(end['loss_low']):.3g}, {float(end['loss_high']):.3g}]",
            f"{float(mine['rate']):.1%} [{float(mine['rate_low']):.1%}, {float(mine['rate_high']):.1%}]",
            f"{float(mine['stayed']):.1%}",
            f"{float(mine['diverged']):.1%}",
            *(_count(float(mine[k])) for k in ("steps", "forwards")),
        )
    console = Console(width=150)
    console.print(table)
    for line in differences(path, radius):
        console.print(line, highlight=False)


def differences(path: xr.Dataset, radius: float | None) -> list[str]:
    """A sentence for each method but the first: how often it ends lower, and arrives, than the first."""
    from gradprobe import stats

    first, *others = (str(name) for name in path["estimator"].values)
    lines = []
    for name in others:
        d = {k: float(v) for k, v in stats.difference(path, name, first, radius=radius).items()}
        lines.append(
            f"{name} against {first}, {d['pairs']:.0f} pairs: reaches a minimum {_signed(d, 'success')} more often, "
            f"ends lower minus ends higher {_signed(d, 'lower')}."
        )
    return lines


def draw(path: xr.Dataset, radius: float | None, out: Path, animate: bool) -> list[Path]:
    """Write the figures that fit the path.

    Returns:
        Their files.
    """
    from gradprobe import plots

    stems = ["reached"]
    plots.reached(path, radius=radius, save=out / "reached")
    if "start" not in path.dims:
        plots.trajectory(path, save=out / "trajectory")
        stems.append("trajectory")
    elif "surface" in path:
        plots.basins(path, radius=radius, save=out / "basins")
        stems.append("basins")
    files = [out / f"{stem}.{end}" for stem in stems for end in ("png", "pdf", "json")]
    return [*files, plots.animate(path, save=out / "trajectory.gif")] if animate else files


def _title(path: xr.Dataset, arrived: xr.Dataset) -> str:
    walkers = path.sizes["seed"] * path.sizes.get("start", 1)
    return f"{path.attrs['function']}: {walkers} walkers, within {arrived.attrs['radius']:.3g} of a global minimum"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < float("inf") else "-"


def _signed(found: dict[str, Any], name: str) -> str:
    return f"{found[name]:+.1%} [{found[f'{name}_low']:+.1%}, {found[f'{name}_high']:+.1%}]"
