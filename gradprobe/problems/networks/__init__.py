"""Networks by name: each file registers a factory of an ``nn.Module``.

Its arguments are what the data offer (``input_shape``, ``classes``, ``vocabulary``, ...; see ``Data.offers``) and
options of its own.
"""

from gradprobe.problems import NETWORKS

register = NETWORKS.register
