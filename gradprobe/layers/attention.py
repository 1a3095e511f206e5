"""Multi-head attention: one layer, because its output projection is never called as a module."""

from gradprobe.layers import register
from gradprobe.layers.generic import Generic


@register("attention", summary="MultiheadAttention", classes=("torch.nn.MultiheadAttention",))
class AttentionRule(Generic):
    """Noise on the attention output; the pull-back runs through the whole module."""

    absorbs = True
