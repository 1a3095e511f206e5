"""Convolutions: each Jacobian entry is the input entry under the kernel at that position (0 in the padding)."""

from gradprobe.layers import register
from gradprobe.layers.generic import SignOfInput


@register(
    "conv",
    summary="Conv1d, Conv2d, Conv3d and their transposes",
    classes=(
        "torch.nn.Conv1d",
        "torch.nn.Conv2d",
        "torch.nn.Conv3d",
        "torch.nn.ConvTranspose1d",
        "torch.nn.ConvTranspose2d",
        "torch.nn.ConvTranspose3d",
    ),
)
class ConvRule(SignOfInput):
    """Signs are taken at each position, before the sum over positions that makes the weight's gradient."""
