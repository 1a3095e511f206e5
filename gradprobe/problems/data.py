"""What a data set is: inputs, targets, and what a network must know of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradprobe.core.errors import UsageError


@dataclass(frozen=True)
class Data:
    """One split of a data set, in a fixed order.

    Attributes:
        inputs: ``[N, *input_shape]``.
        targets: ``[N]``.
        classes: Number of classes.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.inputs.shape[1:])

    def batch(self, size: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """``size`` samples from position ``first`` on.

        Raises:
            UsageError: There are not that many.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"batch_size must be a positive whole number, not {size!r}.")
        if first < 0 or first + size > len(self.inputs):
            raise UsageError(
                f"a batch of {size} from position {first} on does not fit into the {len(self.inputs)} samples "
                "there are; use a smaller batch_size."
            )
        return self.inputs[first : first + size], self.targets[first : first + size]
