"""What options of the command mean: text, and configuration files, into values."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.spec import parse
from gradprobe.problems import MODELS, SOURCES

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"Network by name, {MODELS.written()}.",
    ),
]
ModelArg = Annotated[list[str] | None, typer.Option("--model-arg", help="Option of the network, name=value.")]
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", help="Weights: a file, or early or trained.")]
CheckpointKey = Annotated[
    str | None,
    typer.Option("--checkpoint-key", help="Where in the checkpoint the weights are, such as model."),
]
TrustPickle = Annotated[
    bool | None,
    typer.Option("--trust-pickle", help="Run the code in an old checkpoint: only for a file that is yours."),
]
AllowGlobal = Annotated[
    list[str] | None,
    typer.Option("--allow-global", help="Class that a checkpoint may name, such as argparse.Namespace."),
]
DataName = Annotated[
    str | None,
    typer.Option("--data", help=f"Data by name, {SOURCES.written()}."),
]
DataArg = Annotated[list[str] | None, typer.Option("--data-arg", help="Option of the data, name=value.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Samples in the batch.")]
Split = Annotated[str | None, typer.Option("--split", help="Split that the batch comes from.")]
First = Annotated[int | None, typer.Option("--first", help="Position of the first sample in the split.")]
LossName = Annotated[str | None, typer.Option("--loss", help="Loss, by name; usually the model's own.")]
Mode = Annotated[
    str | None, typer.Option("--mode", help="eval, or as-is: the flags that the model comes with.")
]
Output = Annotated[
    str | None, typer.Option("--output", help="Which output of the model the loss reads, such as logits.")
]

Precision = Annotated[
    str | None,
    typer.Option("--precision", help="Least precision to run in: float32, float64, or as-is."),
]

PROBLEM_KEYS = (
    "model",
    "model_args",
    "checkpoint",
    "checkpoint_args",
    "data",
    "data_args",
    "batch_size",
    "split",
    "first",
    "loss",
    "mode",
    "output",
    "precision",
)
"""What ``load_problem`` takes, and what of a configuration goes to it."""

CHECKPOINT_OPTIONS = {
    "checkpoint_key": "key",
    "trust_pickle": "trust_pickle",
    "allow_global": "allow_globals",
}


def gather(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a command as a configuration: what was not given is left out, pairs become dictionaries.

    Args:
        options: Value by argument name of the command; ``config`` is left out.

    Returns:
        ``model_arg``, ``data_arg`` -> ``model_args``, ``data_args``; the options of the checkpoint ->
        ``checkpoint_args``; the others as they are.

    Raises:
        UsageError: A pair is none.
    """
    given = {k: v for k, v in options.items() if v is not None and v != [] and k != "config"}
    for kind in ("model", "data"):
        pairs = given.pop(f"{kind}_arg", None)
        if pairs:
            given[f"{kind}_args"] = dict(parse_pair(text, kind) for text in pairs)
    checkpoint = {new: given.pop(old) for old, new in CHECKPOINT_OPTIONS.items() if old in given}
    return given | ({"checkpoint_args": checkpoint} if checkpoint else {})


def merged(configuration: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with options of a command on top; arguments of the same model, data or checkpoint are joined.

    Raises:
        UsageError: The configuration would run the code in a checkpoint, or have it build classes, which only the
            command can allow.
    """
    found = {**configuration, **given}
    for kind in ("model", "data", "checkpoint"):
        key = f"{kind}_args"
        same = given.get(kind, configuration.get(kind)) == configuration.get(kind)
        found[key] = (configuration.get(key) or {} if same else {}) | given.get(key, {})
    trusts = (d.get("trust_pickle") for d in (found["checkpoint_args"], given.get("checkpoint_args", {})))
    if next(trusts) and not next(trusts):
        raise UsageError(
            f"the configuration trusts the code in checkpoint {found.get('checkpoint')!r}, which would run now; if "
            "you do too, add --trust-pickle."
        )
    names = found["checkpoint_args"].get("allow_globals")
    if names and not given.get("checkpoint_args", {}).get("allow_globals"):
        listed = [names] if isinstance(names, str) else [str(n) for n in names]
        raise UsageError(
            f"the configuration lets checkpoint {found.get('checkpoint')!r} build {', '.join(listed)}; if you trust "
            f"these, add {' '.join(f'--allow-global {n}' for n in listed)}."
        )
    return {k: v for k, v in found.items() if v != {}}


def read_config(path: Path) -> dict[str, Any]:
    """Options from a TOML file, or the resolved configuration in a run.json.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no configuration file {path}.")
    try:
        if path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            data = data.get("configuration", data)
        else:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    return {k: v for k, v in data.items() if v is not None}


def parse_seeds(given: Any) -> Any:
    """``"5"`` -> 5, ``"0,1,2"`` -> [0, 1, 2]; what is no text stays as it is.

    Raises:
        UsageError: Something else.
    """
    if not isinstance(given, str):
        return given
    try:
        numbers = [int(x) for x in given.split(",")]
    except ValueError:
        raise UsageError(f"seeds must be a number, or numbers separated by commas, not {given!r}.") from None
    return numbers if "," in given else numbers[0]


def parse_value(given: Any) -> Any:
    """A number, a word or a dictionary as in an estimator's options; what is no text stays as it is.

    Raises:
        UsageError: The text is none of these.
    """
    try:
        return parse(f"option(value={given})").options["value"] if isinstance(given, str) else given
    except UsageError:
        raise UsageError(
            f"cannot read {given!r}; write a number, or numbers by name as in {{'lr': 0.1, 'alr': 0.02}}."
        ) from None


def parse_start(text: str | None) -> Any:
    """``"-3,2"`` -> [(-3.0, 2.0)], ``"-3,2;1,1"`` -> two points, ``"10"`` -> 10 (points for each variable).

    Raises:
        UsageError: Something else.
    """
    if text is None:
        return None
    try:
        points = [tuple(float(x) for x in point.split(",")) for point in text.split(";")]
        return int(text) if "," not in text else points
    except ValueError:
        raise UsageError(
            f"start is a point such as -3,2, several such as '-3,2;1,1', or a number such as 10, not {text!r}."
        ) from None


def parse_numbers(text: str | None) -> list[float] | None:
    """``"1e-3,0.1"`` -> [0.001, 0.1].

    Raises:
        UsageError: Something else.
    """
    if text is None:
        return None
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise UsageError(f"numbers are separated by commas, such as 1e-3,1e-2, not {text!r}.") from None


def parse_range(text: str | None) -> tuple[int, int] | None:
    """``"100:1000"`` -> (100, 1000).

    Raises:
        UsageError: Something else.
    """
    if text is None:
        return None
    low, colon, high = text.partition(":")
    if not (colon and low.strip().isdigit() and high.strip().isdigit()):
        raise UsageError(f"a range of copies is written as 100:1000, not {text!r}.")
    return int(low), int(high)


def parse_pair(text: str, kind: str = "model") -> tuple[str, Any]:
    """``"width=16"`` -> ("width", 16); a value that is no JSON is text.

    Args:
        text: What was written.
        kind: Whose option it is, for the message.

    Raises:
        UsageError: There is no "=", or no name before it.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"an option of the {kind} is written as name=value, not {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def set_threads(problem: Any, wish: Any, out: Path, usual: int | None) -> int:
    """Set torch's threads: as asked, as in the run that is there (for the same bits), or as usual.

    Args:
        problem: The problem; its facts say afterwards how many threads it ran with.
        wish: What was asked for; None: nothing.
        out: Run directory.
        usual: How many without a wish; None: as many as are worth while.

    Returns:
        How many.
    """
    import torch

    from gradprobe.probes.threads import best_threads
    from gradprobe.store.info import RUN_FILE, read_info

    if wish is None and (out / RUN_FILE).is_file():
        wish = read_info(out).configuration.get("threads")
    wish = usual if wish is None else wish
    threads = best_threads(problem) if wish is None else whole("threads", wish)
    torch.set_num_threads(threads)
    problem.facts["source"]["threads"] = threads
    return threads
