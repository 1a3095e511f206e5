"""``gradprobe doctor``: what can be trusted of a model, a checkpoint and a batch."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gradprobe.cli_options import parse_pair, parse_value

REFUSED = 2


def doctor(
    model: Annotated[str | None, typer.Option(help="Network, by name.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights: a file, or early or trained.")] = None,
    data: Annotated[str | None, typer.Option(help="Data, by name.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in the batch.")] = None,
    split: Annotated[str | None, typer.Option(help="Split that the batch comes from.")] = None,
    first: Annotated[int | None, typer.Option(help="Position of the first sample in the split.")] = None,
    loss: Annotated[str | None, typer.Option(help="Loss, by name.")] = None,
    model_arg: Annotated[list[str] | None, typer.Option(help="Option of the network, name=value.")] = None,
    estimators: Annotated[
        str | None,
        typer.Option(help="Whose noise to look at; noise on activations and on weights by default."),
    ] = None,
    sigma: Annotated[
        str | None, typer.Option(help="Standard deviation of the noise; 0.01 by default.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Names, globs or class names, comma-separated.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what is looked at before every probe.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what makes estimates silently wrong: a table of ok, warning and refused, one sentence each.

    The exit code is 0 if nothing is refused (there may be warnings), else 2.
    """
    from gradprobe.probes.consult import doctor as look
    from gradprobe.problems.load import load_problem

    named = {"model": model, "checkpoint": checkpoint, "data": data, "batch_size": batch_size}
    named |= {"split": split, "first": first, "loss": loss}
    given: dict[str, Any] = {k: v for k, v in named.items() if v is not None}
    if model_arg:
        given["model_args"] = dict(parse_pair(text) for text in model_arg)
    chosen = [x.strip() for x in layers.split(",")] if layers is not None else None
    problem = load_problem(**given)
    found = look(problem, estimators, sigma=parse_value(sigma), layers=chosen, quick=quick)
    typer.echo(json.dumps(found.to_dict(), indent=1, default=str) if as_json else str(found))
    if found.refused:
        raise typer.Exit(REFUSED)
