"""No centre."""

import torch

from gradprobe.estimators.centres import register


@register("none", summary="the loss as it is")
class Nothing:
    """``L``: the loss's own size adds noise, except in antithetic pairs, where it cancels."""

    exact = True
    whole = False

    def fewest(self, paired: bool) -> int:
        """One."""
        return 1

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """The losses."""
        return losses
