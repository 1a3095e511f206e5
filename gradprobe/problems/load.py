"""``load_problem``: a registered network, a checkpoint and a batch of registered data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError, unknown
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.checkpoint import load_checkpoint
from gradprobe.problems.data import Data
from gradprobe.problems.problem import Problem


def build(
    model: str,
    factory: Callable[..., nn.Module],
    offered: Mapping[str, Any],
    options: Mapping[str, Any],
    data: str,
) -> nn.Module:
    """Call a network's factory with what the data offer and the user's options.

    Args:
        model: Its name, for messages.
        factory: The factory; of what is offered it is given the arguments that it names.
        offered: What the data offer: ``input_shape``, ``classes``, ...
        options: The user's options; they override what is offered.
        data: Name of the data, for messages.

    Raises:
        UsageError: The factory takes no such option, or needs what neither data nor options give.
    """
    takes = inspect.signature(factory).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    for name in options:
        if name not in takes and not anything:
            raise unknown(f"option of model {model!r}", name, takes)
    given = {k: v for k, v in offered.items() if k in takes} | dict(options)
    for name, parameter in takes.items():
        named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if named and parameter.default is parameter.empty and name not in given:
            raise UsageError(
                f"model {model!r} needs {name}, which data {data!r} do not offer; choose data that do, or give it "
                f"as an option ({name}=...)."
            )
    try:
        return factory(**given)
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"model {model!r} cannot be built for data {data!r}: {error}.") from error


def load_data(data: str, split: str, options: Mapping[str, Any]) -> Data:
    """A split of registered data.

    Args:
        data: Name of a data set.
        split: Name of the split.
        options: The user's options.

    Raises:
        UsageError: An unknown name or option.
    """
    load = DATASETS.get(data)
    takes = [name for name in inspect.signature(load).parameters if name != "split"]
    for name in options:
        if name not in takes:
            raise unknown(f"option of data {data!r}", name, takes)
    return load(split, **options)


def load_problem(
    model: str = "resnet5",
    checkpoint: str | Path | None = None,
    data: str = "digits",
    batch_size: int = 32,
    *,
    split: str = "train",
    first: int = 0,
    loss: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    checkpoint_args: Mapping[str, Any] | None = None,
    data_args: Mapping[str, Any] | None = None,
    mode: str = "eval",
    output: str | None = None,
) -> Problem:
    """Build a problem by names.

    Args:
        model: Name of a network.
        checkpoint: File with its weights, or the name of a shipped one; random weights (seed 0) without.
        data: Name of a data set.
        batch_size: Samples in the batch.
        split: Split of the data that the batch comes from.
        first: Position of its first sample.
        loss: Name of a loss; ``cross_entropy`` by default.
        model_args: Further options of the network, such as ``{"width": 16}``.
        checkpoint_args: Options of :func:`~gradprobe.problems.checkpoint.load_checkpoint` (``key``,
            ``trust_pickle``, ``allow_globals``).
        data_args: Further options of the data, such as ``{"length": 32}``.
        mode: ``"eval"``, or ``"as-is"`` for the flags that the module comes with.
        output: Which output of the model the loss reads; found by default.

    Returns:
        The problem.

    Raises:
        UsageError: An unknown name, a checkpoint that does not fit, a batch that is too large.
    """
    of_data, of_checkpoint = dict(data_args or {}), dict(checkpoint_args or {})
    found = load_data(data, split, of_data)
    factory = NETWORKS.get(model)
    options = dict(model_args or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(model, factory, found.offers, options, data)
    facts: dict[str, Any] = {}
    if checkpoint is not None:
        facts |= load_checkpoint(module, checkpoint, **of_checkpoint)
    source: dict[str, Any] = {"model": model, "data": data, "checkpoint": checkpoint and str(checkpoint)}
    source |= {"batch_size": batch_size, "split": split, "first": first, "loss": loss, "mode": mode}
    source |= {
        "model_args": options,
        "data_args": of_data,
        "checkpoint_args": of_checkpoint,
        "output": output,
    }
    facts["source"] = source
    name = f"{model}, {checkpoint or 'untrained'}, {data}"
    chosen: dict[str, Any] = {} if output is None else {"output": output}
    batch = found.batch(batch_size, first)
    return Problem(module, batch, loss or "cross_entropy", mode=mode, name=name, facts=facts, **chosen)
