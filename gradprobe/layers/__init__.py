"""Level 1: one rule for each layer type, and what can be probed in a model.

A rule knows how to pull a cotangent of the layer's output back to its parameters, exactly or with the signs of
the layer's Jacobian. Types without a rule of their own use the generic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradprobe.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from gradprobe.layers.generic import Generic

RULES = Registry("layer rule", __name__)
register = RULES.register


def rule_for(module: nn.Module) -> Generic:
    """The rule of a module: that of the nearest class it inherits its ``forward`` from, or the generic one.

    Args:
        module: A module.

    Returns:
        An instance of the rule.
    """
    return RULES.get(rule_name(module))()


def rule_name(module: nn.Module) -> str:
    """The registered name of the rule of a module; see :func:`rule_for`."""
    if hasattr(module, "parametrizations"):  # the parameters are not the weights that the rule speaks of
        return "generic"
    known = {name: entry.name for entry in RULES for name in entry.meta.get("classes", ())}
    for cls in type(module).__mro__:
        name = known.get(_path(cls))
        if name is not None and type(module).forward is _forward(cls):
            return name
    return "generic"


def _path(cls: type) -> str:
    module = "torch.nn" if cls.__module__.startswith("torch.nn.modules") else cls.__module__
    return f"{module}.{cls.__qualname__}"


def _forward(cls: type) -> Any:
    return getattr(cls, "forward", None)
