"""A graph attention network of two layers, for the classification of nodes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.errors import whole
from gradprobe.core.optional import needs
from gradprobe.problems.networks import register


class GraphAttention(nn.Module):
    """torch_geometric's ``GATConv`` twice: ``first`` (heads side by side) -> ELU -> ``second`` (one head).

    The network of Velickovic et al., "Graph attention networks" (ICLR 2018), without its dropout. ``first.lin``
    and ``second.lin`` are layers of their own; the layers ``first`` and ``second`` are what their convolutions
    own besides: the attention vectors ``att_src`` and ``att_dst``, and the bias.

    Args:
        conv: The class of the convolutions.
        features: Features of a node.
        classes: Number of outputs.
        hidden: Features of each head of the first layer.
        heads: Heads of the first layer.

    Raises:
        UsageError: An option out of range.
    """

    def __init__(self, conv: Any, features: int, classes: int, hidden: int, heads: int) -> None:
        super().__init__()
        hidden, heads = whole("hidden", hidden), whole("heads", heads)
        self.first = conv(whole("features", features), hidden, heads)
        self.second = conv(hidden * heads, whole("classes", classes), 1, concat=False)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, classes]`` of nodes with features ``[N, F]`` and edges ``[2, E]`` (from, to)."""
        return self.second(F.elu(self.first(x, edge_index)), edge_index)


@register("gat", summary="graph attention network (two GATConv layers) for nodes; needs the extra gnn")
def gat(features: int, classes: int, hidden: int = 8, heads: int = 4) -> GraphAttention:
    """Build a :class:`GraphAttention`.

    Raises:
        UsageError: torch_geometric is not installed, or an option is out of range.
    """
    conv = needs("torch_geometric.nn", extra="gnn", what="model 'gat'").GATConv
    return GraphAttention(conv, features, classes, hidden, heads)
