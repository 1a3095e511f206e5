"""ResNet-5: four 3x3 convolutions, one residual connection, one fully connected layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.problems.networks import register


class ResNet5(nn.Module):
    """The ResNet-5 of the likelihood-ratio literature, as in the public code of its group (LR_Test).

    conv 3x3 -> ReLU -> conv -> ReLU -> max-pool 2 -> conv -> ReLU -> conv -> ReLU, plus the input of that last
    convolution -> max-pool 4 -> fully connected. Channels are width, 2 width, 4 width, 4 width. Biases
    everywhere, no normalisation. 20,410 parameters at 3x32x32, ten classes and width 8.

    Args:
        input_shape: Channels, height and width; height and width at least 8.
        classes: Number of outputs.
        width: Channels of the first convolution.
    """

    def __init__(
        self, input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, width: int = 8
    ) -> None:
        super().__init__()
        channels, height, side = input_shape
        if min(height, side) < 8:
            raise UsageError(
                f"ResNet-5 pools by 8, so inputs of {height}x{side} are too small; use at least 8x8."
            )
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.conv4 = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.fc = nn.Linear(4 * width * (height // 8) * (side // 8), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, classes]``."""
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x)) + x
        return self.fc(F.max_pool2d(x, 4).flatten(1))


@register(
    "resnet5", summary="ResNet-5: four convolutions, one skip, one fully connected layer; width is free"
)
def resnet5(input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, width: int = 8) -> ResNet5:
    """Build a :class:`ResNet5`."""
    return ResNet5(input_shape, classes, width)
