"""What a data set is: inputs, targets, and what a network must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import map_tensors, tensors


@dataclass(frozen=True)
class Data:
    """One split of a data set, in a fixed order.

    Attributes:
        inputs: What a model is called with: a tensor ``[N, *input_shape]``, or a tuple (positional arguments) or a
            dict (keyword arguments) of tensors with N rows each.
        targets: ``[N]``.
        classes: Number of classes; None where targets are no classes.
        facts: What else a network may have to know, under the names of its factory's arguments (``vocabulary``,
            ``features``, ...).
        whole: Whether the data are one thing that cannot be divided, such as a graph: a batch is all of it.
        weights: ``w_b`` of each row, ``[N]``, where the data are whole: nodes without a label, or of another
            split, have 0. None: 1/N each.

    Raises:
        UsageError: There are weights for data that are not whole.
    """

    inputs: Any
    targets: torch.Tensor
    classes: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    weights: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not self.whole:
            raise UsageError("weights of rows are for data that are whole; leave such rows out instead.")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; of the first, where there are several."""
        return tuple(tensors(self.inputs)[0].shape[1:])

    @property
    def offers(self) -> dict[str, Any]:
        """What a network's factory may ask for, by the name of its argument."""
        offered = dict(self.facts)
        if isinstance(self.inputs, torch.Tensor):
            offered["input_shape"] = self.input_shape
        if self.classes is not None:
            offered["classes"] = self.classes
        return offered

    def batch(self, size: int, first: int = 0) -> tuple[Any, torch.Tensor]:
        """``size`` samples from position ``first`` on; all of it where it cannot be divided.

        Raises:
            UsageError: There are not that many.
        """
        check_size(size)
        if self.whole:
            return self.inputs, self.targets
        check_room(size, first, len(self))
        check_rows("the data", self.inputs, self.targets)
        rows = slice(first, first + size)
        return map_tensors(lambda t: t[rows], self.inputs), self.targets[rows]


def check_size(size: object) -> None:
    """Refuse what is no size of a batch.

    Raises:
        UsageError: It is no positive whole number.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UsageError(f"batch_size must be a positive whole number, not {size!r}.")


def check_room(size: int, first: int, count: int, name: str = "") -> None:
    """Refuse a batch that is not in the data.

    Args:
        size: Samples in the batch.
        first: Position of the first one.
        count: How many there are.
        name: What to call the data, if there is more to say than "there are".

    Raises:
        UsageError: There are not that many.
    """
    if first < 0 or first + size > count:
        raise UsageError(
            f"a batch of {size} from position {first} on does not fit into the {count} samples "
            f"{f'of {name}' if name else 'there are'}; use a smaller batch_size."
        )


def check_rows(name: str, inputs: Any, targets: torch.Tensor) -> None:
    """Refuse inputs that do not have one row for each target: along axis 0 they are cut into samples.

    Args:
        name: What to call the data.
        inputs: As of :class:`Data`.
        targets: Their targets.

    Raises:
        UsageError: A tensor has other rows, such as ``[time, N, ...]``.
    """
    rows = len(targets) if targets.ndim else None
    odd = next((t for t in (targets, *tensors(inputs)) if not t.ndim or len(t) != rows), None)
    if odd is not None:
        raise UsageError(
            f"{name} have targets of shape {list(targets.shape)} but an input of shape {list(odd.shape)}; every "
            "input must have one row for each target, along its first axis."
        )
