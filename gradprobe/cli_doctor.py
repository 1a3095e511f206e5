"""``gradprobe doctor``: what can be trusted of a model, a checkpoint and a batch."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gradprobe.cli_options import (
    PROBLEM_KEYS,
    AllowGlobal,
    BatchSize,
    Checkpoint,
    CheckpointKey,
    DataArg,
    DataName,
    First,
    LossName,
    Mode,
    Model,
    ModelArg,
    Output,
    Precision,
    Split,
    TrustPickle,
    gather,
    parse_value,
)

REFUSED = 2


def doctor(
    model: Model = None,
    model_arg: ModelArg = None,
    checkpoint: Checkpoint = None,
    checkpoint_key: CheckpointKey = None,
    trust_pickle: TrustPickle = None,
    allow_global: AllowGlobal = None,
    data: DataName = None,
    data_arg: DataArg = None,
    batch_size: BatchSize = None,
    split: Split = None,
    first: First = None,
    loss: LossName = None,
    output: Output = None,
    mode: Mode = None,
    precision: Precision = None,
    estimators: Annotated[
        str | None, typer.Option(help="Whose noise to look at; on activations and on weights by default.")
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
    """Look for what makes estimates silently wrong: ok, warning or refused, one sentence each.

    The exit code is 0 if nothing is refused (there may be warnings), else 2.
    """
    given = gather(locals())
    from gradprobe.probes.consult import doctor as look
    from gradprobe.problems.load import load_problem

    problem = load_problem(**{k: v for k, v in given.items() if k in PROBLEM_KEYS})
    chosen = [x.strip() for x in layers.split(",")] if layers is not None else None
    found = look(problem, estimators, sigma=parse_value(sigma), layers=chosen, quick=quick)
    typer.echo(json.dumps(found.to_dict(), indent=1, default=str) if as_json else str(found))
    if found.refused:
        raise typer.Exit(REFUSED)
