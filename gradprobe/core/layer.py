"""What is known of a layer: the same record on the torch side and in results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters directly, or several modules that share one.

    Attributes:
        name: Name as in ``named_modules()``; "a = b" if modules share a parameter; "(root)" for the model
            itself. Where a recurrent module ``lstm`` runs step by step its layers are ``lstm.l0``,
            ``lstm.l0_reverse``, ``lstm.l1``, ... (and ``lstm.l0_projection``, ...), that of a cell ``cell.gates``.
        kind: Class name of its module.
        parameters: Names of its parameters, as in ``named_parameters()`` of the user's module.
        shapes: Their shapes.
        calls: How often it is called in one forward; 0 if its parameters are used without a call.
        activations: Whether its output can take noise; if not, only weight noise serves it.
        credit: Which loss its activation noise is credited with: each sample's own ("sample") or the copy's
            ("copy").
        axis: Axis of the samples in its outputs, where each sample is credited with its own loss.
        level_of: Name of the layer whose noise it is a level of (:mod:`gradprobe.core.level`); "" for a layer.
        note: What a reader should know about it.
        modules: Module path in the twin -> {parameter name inside that module: name in the user's module}.
        outputs: Shape of the output that takes the noise, for each call.
        contains: Names of the layers that run inside this one.
        matrices_before: How many layers of the model that own a parameter of two or more dimensions run
            before this one.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    calls: int
    activations: bool = True
    credit: str = "sample"
    note: str = ""
    modules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    outputs: tuple[tuple[int, ...], ...] = ()
    contains: tuple[str, ...] = ()
    matrices_before: int = 0
    axis: int = 0
    level_of: str = ""

    @property
    def numel(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        plain = asdict(self)
        if not self.level_of:
            del plain["level_of"]  # as in runs of earlier versions
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layer:
        """Inverse of :meth:`to_dict`."""
        tuples = {key: tuple(data[key]) for key in ("parameters", "contains")}
        shapes = {key: tuple(tuple(s) for s in data[key]) for key in ("shapes", "outputs")}
        return cls(**{**data, **tuples, **shapes})


def paths(layers: Sequence[Layer]) -> dict[str, str]:
    """Module path -> layer name."""
    return {path: layer.name for layer in layers for path in layer.modules}
