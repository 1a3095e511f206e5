"""``load_problem``: a model, a checkpoint and a batch of data, all by what a user writes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradprobe.core.errors import UsageError, described, unknown
from gradprobe.core.registry import Registry
from gradprobe.problems import DATASETS, MODELS, NETWORKS, SOURCES
from gradprobe.problems.build import build, check_options
from gradprobe.problems.checkpoint import load_checkpoint
from gradprobe.problems.data import Data
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.made import RANDOM, Made
from gradprobe.problems.objects import is_python_file, split_place
from gradprobe.problems.origin import Origin
from gradprobe.problems.problem import Problem
from gradprobe.problems.seeded import seeded

PLACES = {"model": MODELS, "data": SOURCES}
"""Where a name that is not registered may come from. The decorators of these say how it is written
(``written``), which files it takes by their name alone (``files``), and which after its word and a colon
(``after_colon``; ``""`` for folders)."""


def find_source(registry: Registry, text: str) -> tuple[str, str]:
    """The source and what it is to find: ``"hf:bert"`` -> ("hf", "bert"), ``"a.b:c"`` -> ("python", "a.b:c")."""
    start, colon, rest = text.partition(":")
    if colon and start.lower() in registry and not Path(text).exists():
        return start.lower(), rest
    return "python", text


def load_model(model: str, data: Data, options: Mapping[str, Any], data_name: str) -> Made:
    """A model of a registered network, or from a source.

    Args:
        model: Its name, ``package.module:factory``, ``hf:NAME``, ...
        data: What it is for.
        options: The user's options.
        data_name: Name of the data, for messages.

    Raises:
        UsageError: There is no such model, or it cannot be made.
    """
    if model in NETWORKS:
        return Made(build(model, NETWORKS.get(model), data.offers, options, data_name))
    source, rest = find_source(MODELS, model)
    if source == "python" and ":" not in rest and not is_python_file(rest):
        raise _no_name(NETWORKS, model)
    if not rest.strip():
        raise UsageError(f"model {model!r} lacks a name after the colon; write {MODELS.written()}.")
    return MODELS.get(source)(rest, data, options)


def load_data(data: str, split: str, options: Mapping[str, Any]) -> Data:
    """A split of registered data, or of data from a source.

    Args:
        data: Its name, ``hf:NAME``, ``package.module:function``, a file with a saved batch.
        split: Name of the split.
        options: The user's options.

    Raises:
        UsageError: There are no such data, or they take no such option.
    """
    if data in DATASETS:
        load = DATASETS.get(data)
        check_options(
            f"data {data!r}", options, [n for n in inspect.signature(load).parameters if n != "split"]
        )
        return load(split, **options)
    source, rest = find_source(SOURCES, data)
    if source == "python" and ":" not in split_drive(rest) and not rest.endswith((".py", ".pyw", ".ipynb")):
        source = _source_of_file(data)
    if not rest.strip():
        raise UsageError(f"data {data!r} lack a name after the colon; write {SOURCES.written()}.")
    return SOURCES.get(source)(rest, split, options)


def _source_of_file(file: str) -> str:
    """The source of data that takes a file by its name alone.

    Raises:
        UsageError: None does; says so if one takes it after its word, or that nothing has this name.
    """
    end = "" if Path(file).is_dir() else Path(file).suffix or None
    for entry in SOURCES:
        if end in entry.meta.get("files", ()):
            return entry.name
        if end in entry.meta.get("after_colon", ()):
            raise UsageError(f"data {file!r} are read by {entry.meta['through']}: write {entry.name}:{file}.")
    raise _no_name(DATASETS, file)


def split_drive(text: str) -> str:
    """A path without the colon of its drive."""
    return text[2:] if text[1:3] in (":/", ":\\") else text


def absolute(text: str) -> str:
    """What a user wrote, with the path in it made absolute, so that it can be found from another directory."""
    if text in NETWORKS or text in DATASETS:
        return text
    start, colon, rest = text.partition(":")
    if colon and start.lower() in (*MODELS.names(), *SOURCES.names()) and Path(rest).expanduser().exists():
        return f"{start}:{Path(rest).expanduser().resolve()}"
    place, name = split_place(text)
    if name and is_python_file(place):
        return f"{Path(place).expanduser().resolve()}:{name}"
    file = Path(text).expanduser()
    return str(file.resolve()) if file.exists() else text


def _text(kind: str, given: Any) -> str:
    """What was written; a path becomes text.

    Raises:
        UsageError: It is something else, such as a module.
    """
    if isinstance(given, (str, Path)):
        return str(given)
    raise UsageError(
        f"load_problem takes the name of {kind}, not {described(given)}; for a module and a batch that you have, "
        "use Problem(module, (inputs, target), loss)."
    )


def _no_name(registry: Registry, name: str) -> UsageError:
    """The error for a word that is nobody's name, with the other ways to write one."""
    error = unknown(registry.kind, name, registry.names())
    return UsageError(f"{str(error).removesuffix('.')}; or {PLACES[registry.kind].written()}.")


def _weights(made: Made, checkpoint: str | Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Load the checkpoint, if there is one; facts about the weights."""
    if checkpoint is None:
        if options:
            raise UsageError(f"{', '.join(options)}: options of a checkpoint, but no checkpoint is given.")
        return {"weights": made.weights, **made.facts}
    takes = [n for n in inspect.signature(load_checkpoint).parameters if n not in ("module", "given")]
    check_options("the checkpoint", options, takes)
    facts = load_checkpoint(made.module, checkpoint, **options)
    replaced = ("weights_sha256", "pretrained")
    kept = {k: v for k, v in made.facts.items() if k not in replaced}
    return {"weights": "those of the checkpoint", **kept, **facts}


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
    precision: str = "float32",
) -> Problem:
    """Build a problem by names.

    Args:
        model: Name of a network, ``package.module:factory``, ``path/file.py:factory``, ``hf:NAME_OR_PATH``,
            ``timm:NAME`` or ``torchvision:NAME``. The current directory is searched for modules, as by
            ``python -m``.
        checkpoint: File with its weights, or the name of a shipped one; without, those that the model comes with
            (random ones, seed 0, for a network by name).
        data: Name of a data set, ``hf:NAME_OR_PATH``, ``package.module:function``, ``path/file.py:function``, or
            a file with a saved batch (``.safetensors``, ``.npz``).
        batch_size: Samples in the batch.
        split: Split of the data that the batch comes from.
        first: Position of its first sample.
        loss: Name of a loss; the model's usual one by default, else ``cross_entropy``.
        model_args: Further options of the network, such as ``{"width": 16}``.
        checkpoint_args: Options of :func:`~gradprobe.problems.checkpoint.load_checkpoint` (``key``,
            ``trust_pickle``, ``allow_globals``).
        data_args: Further options of the data, such as ``{"length": 32}``.
        mode: ``"eval"``, or ``"as-is"`` for the flags that the module comes with.
        output: Which output of the model the loss reads; found by default.
        precision: The least precision to run in: ``"float32"``, ``"float64"``, or ``"as-is"``.

    Returns:
        The problem. ``facts["source"]`` has all of the above, paths made absolute; ``facts["weights"]`` says
        where the weights come from, ``facts["notes"]`` what else must be known (a head that is new).

    Raises:
        UsageError: An unknown name, a checkpoint that does not fit, a batch that is too large.

    Example:
        >>> problem = gp.load_problem(checkpoint="trained", batch_size=8)
        >>> print(problem.name, round(float(problem.clean_losses().mean()), 4))
        resnet5, trained, digits 0.0024
    """
    model, data = _text("model", model), _text("data", data)
    of_model, of_data, of_checkpoint = (
        dict(model_args or {}),
        dict(data_args or {}),
        dict(checkpoint_args or {}),
    )
    with seeded():
        found = load_data(data, split, of_data)
    with seeded():
        made = load_model(model, found, of_model, data)
    facts = _weights(made, checkpoint, of_checkpoint)
    if made.notes and checkpoint is None:  # they are about the weights that the model came with
        facts["notes"] = list(made.notes)
    if made.adapt is not None:
        found = made.adapt(found)
    if isinstance(found, LazyData) and not found.labelled:
        raise UsageError(f"{found.name} have no labels; name their column with the option target=COLUMN.")
    source: dict[str, Any] = {"model": absolute(model), "data": absolute(data)}
    source |= {
        "checkpoint": checkpoint and absolute(str(checkpoint)),
        "batch_size": batch_size,
        "split": split,
    }
    source |= {"first": first, "loss": loss, "mode": mode, "output": output, "precision": precision}
    source |= {"model_args": of_model, "data_args": of_data, "checkpoint_args": of_checkpoint}
    facts["source"] = source
    chosen: dict[str, Any] = {} if output is None else {"output": output}
    filled = "untrained" if made.weights.startswith(RANDOM) else "own weights"
    name = f"{model}, {checkpoint or filled}, {data}"
    with seeded(first if isinstance(first, int) else 0):
        batch = found.batch(batch_size, first)
    chosen |= {"weights": found.weights, "mode": mode, "precision": precision, "name": name, "facts": facts}
    problem = Problem(made.module, batch, loss or made.loss or "cross_entropy", **chosen)
    problem.origin = Origin(found, first)
    return problem
