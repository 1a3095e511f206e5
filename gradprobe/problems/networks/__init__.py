"""Networks by name: each file registers a factory ``(input_shape, classes, **options) -> nn.Module``."""

from gradprobe.problems import NETWORKS

register = NETWORKS.register
