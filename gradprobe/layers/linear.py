"""Linear layers: d output[b, o] / d weight[o, i] = input[b, i]."""

from gradprobe.layers import register
from gradprobe.layers.generic import SignOfInput


@register(
    "linear",
    summary="Linear, also torch_geometric's, and the Conv1D of transformers",
    classes=(
        "torch.nn.Linear",
        "torch_geometric.nn.dense.linear.Linear",
        "transformers.pytorch_utils.Conv1D",
    ),
)
class LinearRule(SignOfInput):
    """``weight`` gets cotangent x input, ``bias`` the cotangent; signs are those of the input."""
