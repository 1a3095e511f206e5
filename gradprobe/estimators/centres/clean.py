"""The loss without noise as the centre."""

import torch

from gradprobe.estimators.centres import register


@register("clean", summary="minus the loss without noise")
class Clean:
    """``L - L_0``: one forward without noise serves all copies."""

    exact = True
    whole = False

    def fewest(self, paired: bool) -> int:
        """One."""
        return 1

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """Losses minus the clean one."""
        return losses - clean
