"""``gradprobe audit``: is somebody's gradient code right, and what is it worth?"""

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
)

WRONG = 2


def audit(
    function: Annotated[
        str, typer.Argument(help="f(module, batch): package.module:name, or path/file.py:name.")
    ],
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
    sigma: Annotated[
        float | None, typer.Option(help="Standard deviation of the function's noise, if it has one.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Evaluations in one call.")] = None,
    where: Annotated[str, typer.Option(help="What that noise is on: weights or activations.")] = "weights",
    target: Annotated[
        str, typer.Option(help="gradient, or surrogate: a field of its own (feedback alignment).")
    ] = "gradient",
    repeats: Annotated[int, typer.Option(help="Calls for each seed.")] = 10,
    seeds: Annotated[int, typer.Option(help="Independent repetitions, at least three.")] = 10,
    layers: Annotated[str | None, typer.Option(help="Names, globs or class names, comma-separated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that was found as JSON.")] = False,
) -> None:
    """Audit code that gives gradients: direction, scale, noise, seeds, and what it leaves behind.

    The exit code is 0 if nothing wrong was found (there may be warnings), else 2.
    """
    given = gather(locals())
    from gradprobe.audits.run import audit as look
    from gradprobe.problems.load import load_problem
    from gradprobe.problems.objects import find_object

    found = look(
        find_object(function, "function"),
        load_problem(**{k: v for k, v in given.items() if k in PROBLEM_KEYS}),
        sigma=sigma,
        samples=samples,
        where=where,
        target=target,
        repeats=repeats,
        seeds=seeds,
        layers=None if layers is None else [x.strip() for x in layers.split(",")],
        progress=False,
    )
    typer.echo(json.dumps(found.to_dict(), indent=1, default=str) if as_json else str(found))
    if not found.ok:
        raise typer.Exit(WRONG)
