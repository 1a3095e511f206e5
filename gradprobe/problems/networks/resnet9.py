"""ResNet-9: eight 3x3 convolutions, two residual connections, one fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.problems.networks import register
from gradprobe.problems.networks._residual import ResidualNet, Stage

PLAN = (Stage(1), Stage(2, pool=True, skip=2), Stage(4, pool=True), Stage(8, pool=True, skip=2))


@register(
    "resnet9", summary="ResNet-9: eight convolutions, two skips, one fully connected layer; width is free"
)
def resnet9(input_shape: Sequence[int], classes: int = 10, width: int = 8, norm: str = "none") -> ResidualNet:
    """Build a ResNet-9.

    The papers of the likelihood-ratio literature that name it do not define it. This is the one that is usually
    meant (D. Page, "How to train your ResNet", 2018): conv -> conv, pool, two with a skip -> conv, pool -> conv,
    pool, two with a skip -> pool -> fully connected, with channels width, 2 width, 4 width, 8 width (his width is
    64) - but, like the public ResNet-5 of that literature, without normalisation by default and with biases.

    Args:
        input_shape: Channels, height and width; height and width at least 8.
        classes: Number of outputs.
        width: Channels of the first convolution.
        norm: ``"none"`` or ``"batch"``.
    """
    return ResidualNet("resnet9", PLAN, input_shape, classes, width, norm)
