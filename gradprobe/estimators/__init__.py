"""Level 2: estimators. Each file registers one method, or the named presets of one method.

``ESTIMATORS`` knows names and one-liners without importing torch. A user registers with the same decorator,
or through the entry point group ``gradprobe.estimators``.
"""

from __future__ import annotations

from gradprobe.core.registry import Registry

ESTIMATORS = Registry("estimator", __name__, entry_points="gradprobe.estimators")
register = ESTIMATORS.register
