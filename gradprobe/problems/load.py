"""``load_problem``: a registered network, a checkpoint and a batch of registered data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.checkpoint import load_checkpoint
from gradprobe.problems.problem import Problem


def load_problem(
    model: str = "resnet5",
    checkpoint: str | Path | None = None,
    data: str = "digits",
    batch_size: int = 32,
    *,
    split: str = "train",
    first: int = 0,
    loss: str = "cross_entropy",
    model_args: Mapping[str, Any] | None = None,
) -> Problem:
    """Build a problem by names.

    Args:
        model: Name of a network.
        checkpoint: File with its weights, or the name of a shipped one; random weights (seed 0) without.
        data: Name of a data set.
        batch_size: Samples in the batch.
        split: Split of the data that the batch comes from.
        first: Position of its first sample.
        loss: Name of a loss.
        model_args: Further options of the network, such as ``{"width": 16}``.

    Returns:
        The problem.

    Raises:
        UsageError: An unknown name, a checkpoint that does not fit, a batch that is too large.
    """
    found = DATASETS.get(data)(split)
    factory = NETWORKS.get(model)
    options = dict(model_args or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module = factory(input_shape=found.input_shape, classes=found.classes, **options)
        except TypeError as error:
            raise UsageError(f"model {model!r} does not take these options: {error}.") from error
    facts: dict[str, Any] = {}
    if checkpoint is not None:
        facts |= load_checkpoint(module, checkpoint)
    source: dict[str, Any] = {"model": model, "data": data, "checkpoint": checkpoint and str(checkpoint)}
    source |= {"batch_size": batch_size, "split": split, "first": first, "loss": loss, "model_args": options}
    facts["source"] = source
    name = f"{model}, {checkpoint or 'untrained'}, {data}"
    return Problem(module, found.batch(batch_size, first), loss, name=name, facts=facts)
