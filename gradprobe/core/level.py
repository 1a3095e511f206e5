"""Levels of noise: records beside those of layers, for estimators of what the noise's own size does to the loss."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gradprobe.core.layer import Layer


@dataclass(frozen=True)
class Level(Layer):
    """The level of a layer's noise, as a layer with one parameter of its own.

    Its parameter, ``conv1.sigma``, has the shape ``[]``: one sigma for the layer; or ``[C]``, ``conv1.sigmas``: one
    for each of its neurons (channels).

    Attributes:
        base: The layer whose noise it is.
        neurons: Axis of the neurons in the layer's output; None where one sigma serves all.
    """

    base: Layer | None = None
    neurons: int | None = None

    @property
    def noisy(self) -> Layer:
        """The layer whose noise it is."""
        assert self.base is not None
        return self.base

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON: that of a layer."""
        return Layer(**{f.name: getattr(self, f.name) for f in fields(Layer)}).to_dict()


def noisy(layers: Sequence[Layer]) -> list[Layer]:
    """The layers whose noise it is: of a level its own, of a layer itself; each once."""
    found = {x.name: x for x in (x.noisy if isinstance(x, Level) else x for x in layers)}
    return list(found.values())


def level_of(layer: Layer, taken: Collection[str], axis: int | None = None) -> Level:
    """The level of a layer's noise.

    Args:
        layer: The layer.
        taken: Names of layers and parameters of the model.
        axis: Axis of its neurons in its output, where each is to have a sigma; None for one sigma.
    """
    word = "sigma" if axis is None else "sigmas"
    shape = () if axis is None else (layer.outputs[0][axis],)
    parts = [f"{part}.{word}" for part in layer.name.split(" = ")]
    if {*parts, " = ".join(parts)} & set(taken):
        parts = [f"{part} of the noise" for part in parts]
    return Level(
        name=" = ".join(parts),
        kind="noise level",
        parameters=(parts[0],),
        shapes=(shape,),
        calls=layer.calls,
        activations=layer.activations,
        credit=layer.credit,
        axis=layer.axis,
        level_of=layer.name,
        base=layer,
        neurons=axis,
    )
