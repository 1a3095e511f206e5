"""ResNet-12: eleven 3x3 convolutions, four residual connections, one fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.problems.networks import register
from gradprobe.problems.networks._residual import ResidualNet, Stage

PLAN = (
    Stage(1),
    Stage(2, pool=True, skip=2),
    Stage(4, pool=True, skip=2),
    Stage(8, pool=True, skip=2),
    Stage(0, skip=1),
)


@register(
    "resnet12", summary="ResNet-12: eleven convolutions, four skips, one fully connected layer; width is free"
)
def resnet12(
    input_shape: Sequence[int], classes: int = 10, width: int = 8, norm: str = "none"
) -> ResidualNet:
    """Build a ResNet-12.

    The papers of the likelihood-ratio literature that name it do not define it; counted as their ResNet-5 is, it
    has eleven convolutions and one fully connected layer. (The ResNet-12 of few-shot learning has twelve and 1x1
    convolutions in its skips.) A choice of ours: ResNet-9 with a skip in each of its three pooled stages, and one
    more convolution with a skip around it at the end, as in ResNet-5. Without normalisation by default, with
    biases.

    Args:
        input_shape: Channels, height and width; height and width at least 8.
        classes: Number of outputs.
        width: Channels of the first convolution.
        norm: ``"none"`` or ``"batch"``.
    """
    return ResidualNet("resnet12", PLAN, input_shape, classes, width, norm)
