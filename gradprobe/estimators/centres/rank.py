"""Centred ranks of the losses within a block."""

import torch

from gradprobe.estimators.centres import register


@register("rank", summary="centred rank among the block's copies, from -1/2 (lowest loss) to 1/2")
class CentredRank:
    """``(copies with a lower loss - copies with a higher one) / (2 (m - 1))`` (OpenAI-ES, arXiv 1703.03864).

    Equal losses share the mean of their ranks; antithetic partners are two copies like any others. Ranks see the
    order of the losses alone, so that neither outliers nor the loss's scale matter: those of each sample where noise
    is credited with its samples' losses, of the batch where weight noise is shared.

    The mean is a field of its own: the gradient of ``E F(L(theta + sigma eps))`` with the losses' distribution
    function F (half of a jump counted) held where it is. Where the loss is nearly linear over the noise that is the
    gradient's direction, ``1 / (2 sqrt(pi) sigma |gradient|)`` times the gradient under Gaussian noise.

    Copies of a block are ranked among each other, so the block is part of the method: without antithetic pairs its
    size leaves the mean as it is, but not the variance; with them each copy's partner is among its m - 1 rivals,
    and the mean depends on m too.
    """

    exact = False
    whole = True

    def fewest(self, paired: bool) -> int:
        """Two: an antithetic pair can be ranked."""
        return 2

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """Ranks of each column among the copies that are kept; 0 where there is no other."""
        count = kept.expand_as(losses).sum(0)
        shown = torch.where(kept, losses, torch.inf).movedim(0, -1).contiguous()
        in_order = shown.sort(-1).values
        below = torch.searchsorted(in_order, shown)
        not_above = torch.searchsorted(in_order, shown, right=True)
        lead = (below + not_above).movedim(-1, 0) - count  # how many are lower less how many are higher
        return lead.to(losses.dtype) / (2 * (count - 1).clamp(min=1))
