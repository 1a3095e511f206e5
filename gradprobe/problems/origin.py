"""Further batches of a problem: where they come from, how data are cut into them, the same problem on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gradprobe.core.errors import UsageError, described, whole
from gradprobe.core.hooks import map_tensors, tensors
from gradprobe.core.rows import Rows
from gradprobe.problems.data import Data
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.objects import one_line
from gradprobe.problems.problem import Problem
from gradprobe.problems.seeded import seeded

Batch = tuple[Any, Any]

FORMS = "a DataLoader, a list of batches (inputs, target), or a pair of tensors (inputs, target)"


@dataclass(frozen=True)
class Origin:
    """Where a problem's batch was drawn from.

    Attributes:
        data: The split.
        first: Position of the batch's first sample in it.
    """

    data: Data
    first: int


def rows_of(problem: Problem, batch: Batch) -> Rows:
    """Where the samples of a batch lie.

    Args:
        problem: The problem whose kind of batch it is.
        batch: Inputs and target.

    Raises:
        UsageError: The inputs have no axis of samples.
    """
    own = Rows(problem.samples, problem.batch_axis)
    at, axis = next(
        ((i, own.axis_of(t)) for i, t in enumerate(tensors(problem.inputs)) if own.axis_of(t) is not None),
        (0, None),
    )
    given = tensors(batch[0])
    if axis is None or at >= len(given) or given[at].ndim <= axis or not given[at].shape[axis]:
        raise UsageError("a batch of the data has no samples; give batches like the problem's own.")
    return Rows(given[at].shape[axis], axis)


def cut(batch: Batch, rows: Rows, first: int, size: int) -> Batch:
    """``size`` samples of a batch from position ``first`` on."""
    inputs, target = rows.map(lambda t, axis: t.narrow(axis, first, size), tuple(batch))
    return inputs, target


def stream(problem: Problem, dataset: Any = None) -> tuple[Iterator[Batch], int | None]:
    """A whole data set in batches of the problem's size (the last may be smaller), or as it is cut already.

    Args:
        problem: The problem.
        dataset: A DataLoader or any iterable of batches ``(inputs, target)``, a pair ``(inputs, target)`` to be
            cut, or :class:`Data`. None: the split that ``load_problem`` drew the problem's batch from.

    Returns:
        The batches, each read when it is asked for, and how many samples there are if that is known.

    Raises:
        UsageError: There are no such data, they cannot be divided, or they are of no such form.
    """
    if dataset is None:
        dataset = _origin(problem, "give dataset=").data
    size = problem.samples
    if isinstance(dataset, Data):
        data = dataset
        _divisible(data)
        if isinstance(data, LazyData) and data.through is not None:
            return data.through(size), None
        firsts = range(0, len(data), size)
        return (data.batch(min(size, len(data) - first), first) for first in firsts), len(data)
    if isinstance(dataset, tuple) and len(dataset) == 2 and isinstance(dataset[1], torch.Tensor):
        pair: Batch = (dataset[0], dataset[1])
        rows = rows_of(problem, pair)
        firsts = range(0, rows.size, size)
        return (cut(pair, rows, first, min(size, rows.size - first)) for first in firsts), rows.size
    if isinstance(dataset, torch.utils.data.Dataset) or not isinstance(dataset, Iterable):
        raise UsageError(f"dataset must be {FORMS}, not {described(dataset)}.")
    return _given("dataset", dataset), None


def further(problem: Problem, batches: Any) -> list[Callable[[], Problem]]:
    """What makes the problem on each of several batches, its own first; one at a time, since each has a model's twin.

    Args:
        problem: The problem.
        batches: How many in all: those that follow its own in the split that it was drawn from; or a list of the
            others.

    Returns:
        At least two functions, whose problems have as many samples each; ``facts["source"]`` of each says where its
        own batch is.

    Raises:
        UsageError: There are not that many, or they do not fit the problem.
    """
    check_mean(problem)
    if isinstance(batches, Iterable) and not isinstance(batches, str):
        with seeded():
            found = list(_given("batches", batches))
        sources: list[dict[str, Any]] = [{} for _ in found]
        origins: list[Origin | None] = [None for _ in found]
    else:
        count = whole("batches", batches, 2)
        origin = _origin(problem, "give a list of further batches (inputs, target)")
        _divisible(origin.data)
        size = problem.samples
        firsts = [origin.first + size * index for index in range(1, count)]
        have = (len(origin.data) - origin.first) // size
        if have < count:
            raise UsageError(
                f"there are {have} batches of {size} samples from position {origin.first} on, not {count}; use "
                "fewer or smaller batches."
            )
        found = [_read(origin.data, size, first) for first in firsts]
        sources = [{"first": first} for first in firsts]
        origins = [Origin(origin.data, first) for first in firsts]
    if not found:
        raise UsageError("batches must hold at least one further batch (inputs, target).")
    for batch in found:
        size, own = rows_of(problem, batch).size, problem.samples
        if size != own:
            raise UsageError(
                f"a further batch has {size} samples and the problem's own {own}; give equal ones."
            )
    others = (partial(_on, problem, *given) for given in zip(found, sources, origins, strict=True))
    return [lambda: problem, *others]


def check_mean(problem: Problem) -> None:
    """Refuse a problem whose loss is not the mean of its samples' own: there, data have no mean gradient.

    Raises:
        UsageError: It has weights of its own, or two halves of its batch do not have the loss of the whole.
    """
    if problem.has_weights:
        raise UsageError(
            "the problem's weights belong to the samples of its own batch; leave weights= out to compare batches."
        )
    batch = (problem.inputs, problem.target)
    rows = rows_of(problem, batch)
    if rows.size == 1:
        _check_alone(problem, rows)
        return
    half = rows.size // 2
    try:
        losses = [
            (n, problem.mean_loss(cut(batch, rows, first, n)))
            for first, n in ((0, half), (half, rows.size - half))
        ]
        clean = problem.mean_loss(batch)
        mean = sum(n * loss for n, loss in losses) / rows.size
    except Exception as error:  # whatever a model does with half of its batch
        raise UsageError(f"the problem's batch cannot be divided ({type(error).__name__}).") from error
    if _differ(mean, clean):
        raise UsageError(
            f"the loss is not the mean over samples (halves of the batch have {mean:.6g}, all of it {clean:.6g}): "
            "they are coupled (a graph, BatchNorm in training mode) or summed, so there is no mean over other data."
        )


def _check_alone(problem: Problem, rows: Rows) -> None:
    """As :func:`check_mean` for a batch of one: the sample twice over must have its loss."""
    batch = (problem.inputs, problem.target)
    try:
        clean, twice = (problem.mean_loss(tuple(given)) for given in (batch, rows.repeated(batch, 2)))
    except Exception as error:  # whatever a model does with its sample twice
        raise UsageError(
            f"the problem's batch is one sample, which cannot be given twice ({type(error).__name__}); so it is not "
            "known whether the loss is a mean over samples; use a batch of at least two."
        ) from error
    if _differ(twice, clean):
        raise UsageError(
            f"the loss is not the mean over samples (the batch's one sample has {clean:.6g}, twice over "
            f"{twice:.6g}): samples are coupled or summed, so there is no mean over other data."
        )


def _differ(loss: float, clean: float) -> bool:
    return abs(loss - clean) > 1e-4 * abs(clean) + 1e-6


def _read(data: Data, size: int, first: int) -> Batch:
    """A batch of the data, the same each time where they are random (augmented): seeded by its position."""
    with seeded(first):
        return data.batch(size, first)


def _on(problem: Problem, batch: Batch, source: dict[str, Any], origin: Origin | None) -> Problem:
    """The problem on another batch of as many samples."""
    other = problem.with_batch(batch)
    other.origin = origin
    if "source" in other.facts:
        other.facts["source"] = other.facts["source"] | source
    return other


def _origin(problem: Problem, way_out: str) -> Origin:
    if isinstance(problem.origin, Origin):
        return problem.origin
    raise UsageError(f"nothing is known of the data behind this problem's one batch; {way_out}.")


def _divisible(data: Data) -> None:
    if data.whole:
        raise UsageError("these data are one thing (a graph) that cannot be divided into batches.")


def _given(name: str, batches: Iterable[Any]) -> Iterator[Batch]:
    """The batches of an iterable of the user's.

    Raises:
        UsageError: It fails, or gives something else.
    """
    try:
        for batch in batches:
            yield _pair(batch)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{name} fails at a batch: {one_line(error)}.") from error


def _pair(batch: Any) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise UsageError(f"each batch must be a pair (inputs, target), not {described(batch)}.")
    return batch[0], batch[1]


def on_device(problem: Problem, batch: Batch) -> Batch:
    """A batch where the problem is."""
    inputs, target = map_tensors(lambda t: t.to(problem.device), tuple(batch))
    return inputs, target
