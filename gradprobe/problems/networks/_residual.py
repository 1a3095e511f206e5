"""Residual networks written as a plan: stages of a convolution, a pooling and a skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.errors import one_of, whole
from gradprobe.problems.networks._shapes import image_shape

NORMS = ("none", "batch")


class Stage(NamedTuple):
    """A part of a residual network.

    Attributes:
        channels: Channels of its first convolution, in units of the width; 0: it has none.
        pool: Whether a max-pooling by 2 follows that.
        skip: Convolutions after that whose input is added to their output.
    """

    channels: int
    pool: bool = False
    skip: int = 0


class ResidualNet(nn.Module):
    """3x3 convolutions (padding 1), each followed by ReLU; max-pooling; one fully connected layer.

    The input of a skip is added after its last ReLU, as in the public ResNet-5. What is left of height and width
    at the end is max-pooled away, so the last layer does not depend on the size of the images. Convolutions are
    ``conv1``, ``conv2``, ... in execution order, the last layer is ``fc``.

    Args:
        model: Name, for messages.
        plan: The stages.
        input_shape: Channels, height and width; each at least 2 to the number of poolings.
        classes: Number of outputs.
        width: Channels of the first convolution.
        norm: ``"none"`` (biases everywhere) or ``"batch"``: BatchNorm ``norm1``, ``norm2``, ... between each
            convolution, then without a bias, and its ReLU. Probed as ``mode="eval"``, it uses running statistics.

    Raises:
        UsageError: An option out of range, or inputs that are no images or too small.
    """

    def __init__(
        self,
        model: str,
        plan: Sequence[Stage],
        input_shape: Sequence[int],
        classes: int,
        width: int,
        norm: str,
    ) -> None:
        super().__init__()
        one_of("norm", norm, NORMS)
        width, classes = whole("width", width), whole("classes", classes)
        inside, *_ = image_shape(model, input_shape, 2 ** sum(stage.pool for stage in plan))
        self.plan, self.norm = tuple(plan), norm
        widths: list[int] = []
        for stage in self.plan:
            wide = stage.channels * width or widths[-1]
            widths += [wide] * (stage.skip + (stage.channels > 0))
        for number, (before, after) in enumerate(zip([inside, *widths], widths, strict=False), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1, bias=norm == "none"))
            if norm == "batch":
                self.add_module(f"norm{number}", nn.BatchNorm2d(after))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, classes]``."""
        number = 0

        def step(x: torch.Tensor) -> torch.Tensor:
            nonlocal number
            number += 1
            x = self.get_submodule(f"conv{number}")(x)
            return F.relu(self.get_submodule(f"norm{number}")(x) if self.norm == "batch" else x)

        for stage in self.plan:
            x = step(x) if stage.channels else x
            x = F.max_pool2d(x, 2) if stage.pool else x
            around = x
            for _ in range(stage.skip):
                x = step(x)
            x = x + around if stage.skip else x
        return self.fc(x.amax((2, 3)))
