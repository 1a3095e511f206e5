"""``gradprobe trajectory``: how estimators walk on a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradprobe.cli_options import parse_numbers, parse_seeds, parse_start, parse_value
from gradprobe.core.errors import UsageError

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
    rates: Annotated[str | None, typer.Option(help="What tuning tries, such as 1e-3,1e-2,0.1.")] = None,
    criterion: Annotated[str | None, typer.Option(help="What tuning looks at: loss, or steps.")] = None,
    tuning_seeds: Annotated[int | None, typer.Option(help="Seeds of tuning; 10 by default.")] = None,
    root_seed: Annotated[int, typer.Option(help="Root of all noise keys.")] = 0,
    radius: Annotated[float | None, typer.Option(help="How near a minimum counts as reached.")] = None,
    stay: Annotated[
        bool,
        typer.Option("--stay", help="Count only walkers that stay at a minimum, not those that pass by."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for figures and data.")] = Path("figures/trajectory"),
    animate: Annotated[bool, typer.Option("--animate", help="Write an animation (GIF) too.")] = False,
) -> None:
    """Descend a test function with each method's directions: a table, paths, and how many arrive."""
    from gradprobe import plots
    from gradprobe.store.files import check_writable
    from gradprobe.trajectory.descent import descend

    check_writable(out)
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
        rates=parse_numbers(rates),
        criterion=criterion,
        tuning_seeds=tuning_seeds,
        root_seed=root_seed,
    )
    options = {"radius": radius, "stay": stay}
    show(path, options)
    files = draw(path, options, out, isinstance(parse_start(start), int))
    if animate:
        files.append(plots.animate(path, save=out / "trajectory.gif"))
    files += save(path, out / "path.nc")
    for file in files:
        typer.echo(f"wrote {file}")


def show(path: xr.Dataset, options: dict[str, Any]) -> None:
    """Print what became of the walkers of each method, and how methods differ from the first."""
    from rich.console import Console
    from rich.table import Table

    from gradprobe import stats

    last = stats.progress(path, **options).isel(step=-1)
    arrived = stats.success(path, **options)
    table = Table(box=None, title=_title(path, arrived), title_justify="left")
    word = "stayed" if options["stay"] else "reached"
    columns = ("method", "learning rate", "last loss, median [10-90 %]", f"{word} [95 %]", "there at the end")
    for column in (*columns, "diverged", f"steps, half {word}", f"forwards, half {word}"):
        table.add_column(column)
    for name in path["estimator"].values:
        end, mine = last.sel(estimator=name), arrived.sel(estimator=name)
        table.add_row(
            str(name),
            f"{float(path['lr'].sel(estimator=name)):.3g}",
            f"{float(end['loss']):.3g} [{float(end['loss_low']):.3g}, {float(end['loss_high']):.3g}]",
            _share(mine, bool(path["stochastic"].sel(estimator=name))),
            f"{float(mine['stayed']):.1%}",
            f"{float(mine['diverged']):.1%}",
            *(_count(float(mine[k])) for k in ("steps", "forwards")),
        )
    console = Console(width=150)
    console.print(table)
    for line in differences(path, options):
        console.print(line, highlight=False)


def differences(path: xr.Dataset, options: dict[str, Any]) -> list[str]:
    """A sentence for each method but the first: how often it ends lower, and arrives, than the first."""
    from gradprobe import stats

    first, *others = (str(name) for name in path["estimator"].values)
    word = "stays at" if options["stay"] else "reaches"
    lines = []
    for name in others:
        d = {k: float(v) for k, v in stats.difference(path, name, first, **options).items()}
        lines.append(
            f"{name} against {first}, {d['pairs']:.0f} pairs: {word} a minimum {_signed(d, 'success')} more often, "
            f"ends lower minus ends higher {_signed(d, 'lower')}."
        )
    return lines


def draw(path: xr.Dataset, options: dict[str, Any], out: Path, grid: bool) -> list[Path]:
    """Write the figures that fit the path.

    Returns:
        Their files.
    """
    from gradprobe import plots

    stems = ["reached"]
    plots.reached(path, **options, save=out / "reached")
    if grid and "surface" in path and "start" in path.dims:
        plots.basins(path, radius=options["radius"], save=out / "basins")
        stems.append("basins")
    else:
        for start in range(path.sizes.get("start", 1)):
            stems.append(f"trajectory-{start + 1}" if "start" in path.dims else "trajectory")
            plots.trajectory(path, start=start, save=out / stems[-1])
    return [out / f"{stem}.{end}" for stem in stems for end in ("png", "pdf", "json")]


def save(path: xr.Dataset, file: Path) -> list[Path]:
    """Write the numbers, if the extra for netCDF is there."""
    from gradprobe.store.export import export

    try:
        return [export(path, file)]
    except UsageError as error:
        typer.echo(f"The numbers were not written: {error}", err=True)
        return []


def _title(path: xr.Dataset, arrived: xr.Dataset) -> str:
    walkers = path.sizes["seed"] * path.sizes.get("start", 1)
    return f"{path.attrs['function']}: {walkers} walkers, within {arrived.attrs['radius']:.3g} of a global minimum"


def _share(arrived: xr.Dataset, noisy: bool) -> str:
    ends = f" [{float(arrived['rate_low']):.1%}, {float(arrived['rate_high']):.1%}]" if noisy else ""
    return f"{float(arrived['rate']):.1%}{ends}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < float("inf") else "-"


def _signed(found: dict[str, Any], name: str) -> str:
    return f"{found[name]:+.1%} [{found[f'{name}_low']:+.1%}, {found[f'{name}_high']:+.1%}]"
