"""The mean of the other copies' losses as the centre."""

import torch

from gradprobe.estimators.centres import register


@register("mean", summary="minus the mean of the block's other copies, the antithetic partner left out")
class MeanOfOthers:
    """``L_k - mean of L_j``, j neither k nor its partner: the centre is independent of the copy's noise."""

    exact = True
    whole = True

    def fewest(self, paired: bool) -> int:
        """Two, or two pairs."""
        return 4 if paired else 2

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """Losses minus the mean of the others; 0 where no other is left."""
        own = losses + losses.roll(len(losses) // 2, 0) if paired else losses
        others = kept.sum(0) - (2 if paired else 1)
        mean = (losses.sum(0) - own) / others.clamp(min=1)
        return torch.where(others > 0, losses - mean, 0.0)
