"""``gradprobe plan``: which method, with how many copies, for which layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradprobe.core.copyplan import Plan


def plan(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    cosine: Annotated[float | None, typer.Option(help="Target of the whole model, such as 0.9.")] = None,
    budget: Annotated[float | None, typer.Option(help="In its place, what one estimate may cost.")] = None,
    every_layer: Annotated[
        bool, typer.Option("--every-layer", help="Every layer has to reach the cosine by itself.")
    ] = False,
    methods: Annotated[
        str | None, typer.Option(help="Methods of the run to choose from; all with noise by default.")
    ] = None,
    cost: Annotated[
        str, typer.Option(help="What costs are counted in: equivalents (full forwards), forwards or seconds.")
    ] = "equivalents",
    reference: Annotated[str, typer.Option(help="bp or smoothed.")] = "bp",
    out: Annotated[
        Path | None, typer.Option(help="File for the plan, .json; gradprobe probe --estimators runs it.")
    ] = None,
) -> None:
    """Choose a method and copies for each layer: the cheapest for a cosine, or the best for a budget."""
    from gradprobe.stats.planning import plan as make_plan
    from gradprobe.store.run import open_run

    found = make_plan(open_run(run), cosine, budget, every_layer, methods, cost, reference)
    file = None if out is None else found.save(out)
    show(found)
    if file is not None:
        typer.echo(
            f"wrote {file}; run it with: gradprobe probe --estimators {file} --out FOLDER and the problem's options"
        )


def show(found: Plan) -> None:
    """Print a plan: a table of layers, one of single methods for comparison, and notes."""
    from rich.console import Console
    from rich.table import Table

    from gradprobe.report.plans import bound_of, cells, headers

    console = Console(width=150)
    console.print(found.heading(), highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None)
    for column in headers(found):
        table.add_column(column, justify="left" if column in ("layer", "method") else "right")
    for row in found.layers:
        table.add_row(*cells(row))
    console.print(table)
    for line in [bound_of(found), *found.sentences()]:
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
