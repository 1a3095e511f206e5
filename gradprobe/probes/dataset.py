"""The gradient of the mean loss over a whole data set: the reference ``"dataset"``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.core.rows import Rows
from gradprobe.problems.origin import Batch, check_mean, on_device, rows_of, stream
from gradprobe.problems.problem import Problem
from gradprobe.problems.seeded import seeded


@dataclass(frozen=True)
class Whole:
    """What a pass over a data set found.

    Attributes:
        gradient: Gradient of the mean loss by parameter, float64.
        loss: The mean loss.
        samples: How many samples.
        digest: Of the samples, whatever their order and the batches that they came in.
    """

    gradient: dict[str, torch.Tensor]
    loss: float
    samples: int
    digest: str

    @property
    def facts(self) -> dict[str, Any]:
        """What a run keeps of it, beside the reference's moments."""
        return {"samples": self.samples, "loss": self.loss, "digest": self.digest}


def whole_gradient(
    problem: Problem,
    layers: Sequence[Layer],
    dataset: Any = None,
    report: Callable[[str], None] = lambda label: None,
) -> Whole:
    """Gradient of the mean loss over a data set, by backprop in the problem's mode, batch by batch.

    One forward and one backward over the data; a batch is in memory at a time, and the sum in float64. The
    problem is to be frozen.

    Args:
        problem: The problem.
        layers: All of its layers.
        dataset: See :func:`gradprobe.problems.origin.stream`; a :class:`Whole` is returned as it is.
        report: Told of each batch.

    Raises:
        UsageError: The samples are coupled, there are no data or no more of them than the batch, a batch fails, or
            the gradient is not finite.
    """
    if isinstance(dataset, Whole):
        return dataset
    check_mean(problem)
    batches, known = stream(problem, dataset)
    with seeded():  # random data (augmented) are the same each time
        return _added_up(problem, layers, batches, known, report)


def _added_up(
    problem: Problem,
    layers: Sequence[Layer],
    batches: Iterable[Batch],
    known: int | None,
    report: Callable[[str], None],
) -> Whole:
    values = problem.parameters
    names = [name for layer in layers for name in layer.parameters]
    leaves = {name: values[name].clone().requires_grad_() for name in names}
    sums = {name: torch.zeros_like(values[name], dtype=torch.float64) for name in names}
    samples, loss, mark = 0, 0.0, 0
    for batch in batches:
        batch = on_device(problem, batch)
        rows = rows_of(problem, batch)
        mean, found = problem.gradient_of(batch, leaves, list(leaves.values()))
        for name, g in zip(names, found, strict=True):
            if g is not None:
                sums[name] += rows.size * g.double()
        samples, loss, mark = samples + rows.size, loss + rows.size * mean, mark + _marks(batch, rows)
        report(f"gradient over the data: {samples:,}{f' of {known:,}' if known else ''} samples")
    if samples <= problem.samples:
        raise UsageError(
            f"the data hold {samples} samples and the batch {problem.samples}; a reference over data needs more."
        )
    gradient = {name: total / samples for name, total in sums.items()}
    if not all(bool(g.isfinite().all()) for g in gradient.values()):
        raise UsageError("the gradient over the data set is not finite; look for samples whose loss is not.")
    return Whole(gradient, loss / samples, samples, f"{mark % 2**256:064x}")


def check_same(new: Whole, old: dict[str, Any] | None, where: Any) -> None:
    """Refuse to add to a run whose reference is another data set's.

    Args:
        new: This request's.
        old: The facts of the run that is there, if it has any.
        where: The run.

    Raises:
        UsageError: The samples are others.
    """
    if old and old["digest"] != new.digest:
        raise UsageError(
            f"{where} holds a reference over other data ({old['samples']} samples, here {new.samples}); choose "
            "another out= (or the dataset of that run)."
        )


def _marks(batch: Batch, rows: Rows) -> int:
    """Sum of the SHA-256 of each sample: it depends on which samples there are, not on their order."""
    parts = []
    for t in tensors(list(batch)):
        axis = rows.axis_of(t)
        if axis is not None:
            flat = t.detach().movedim(axis, 0).reshape(rows.size, -1).cpu().contiguous()
            parts.append((f"{flat.dtype}{flat.shape[1]}".encode(), flat.view(torch.uint8).numpy()))
    total = 0
    for row in range(rows.size):
        own = b"".join(kind + data[row].tobytes() for kind, data in parts)
        total += int.from_bytes(hashlib.sha256(own).digest(), "little")
    return total
