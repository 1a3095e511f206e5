"""What losses are turned into before they weigh the noise: each file registers one centre."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gradprobe.core.registry import Registry

if TYPE_CHECKING:
    import torch

CENTRES = Registry("centre", __name__)
register = CENTRES.register


class Centre(Protocol):
    """A way to centre losses.

    Attributes:
        exact: Whether it only subtracts something that the copy's own noise does not move: then the mean is that
            of the losses themselves.
        whole: Whether it needs the losses of the whole block at once.
    """

    exact: bool
    whole: bool

    def fewest(self, paired: bool) -> int:
        """Fewest copies in a block.

        Args:
            paired: Whether copies are antithetic pairs.
        """
        ...

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """What weighs the noise of each copy.

        Args:
            losses: ``[m]`` or ``[m, B]``; 0 for copies that are left out.
            clean: Losses without noise, ``[]`` or ``[B]``.
            kept: Which copies count, of a shape that broadcasts to that of the losses along its first axes.
            paired: Whether copy k + m/2 is the antithetic partner of copy k.

        Returns:
            Same shape as ``losses``; whatever for copies that are left out.
        """
        ...
