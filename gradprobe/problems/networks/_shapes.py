"""What several networks ask of their arguments."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.core.errors import UsageError


def image_shape(model: str, shape: Sequence[int], least: int = 1) -> tuple[int, int, int]:
    """Channels, height and width of images.

    Args:
        model: Name of the network, for messages.
        shape: Shape of one input.
        least: Height and width that the network needs.

    Raises:
        UsageError: The inputs are no images, or too small.
    """
    if len(shape) != 3:
        raise UsageError(
            f"model {model!r} needs images of shape [channels, height, width], such as digits, not inputs of "
            f"shape {list(shape)}."
        )
    channels, height, width = shape
    if min(height, width) < least:
        raise UsageError(
            f"model {model!r} pools by {least}, so inputs of {height}x{width} are too small; use at least "
            f"{least}x{least}."
        )
    return channels, height, width
