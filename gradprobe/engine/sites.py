"""Where noise goes in a forward, and what is kept of the forward for pulling back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, with_first_tensor
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import Site as Site  # what else deals with sites finds it here
from gradprobe.engine.storing import AS_IT_IS, Inputs, Storing

if TYPE_CHECKING:
    from gradprobe.engine.graph import Graph


@dataclass
class Segment:
    """Inputs that layers saw under noise, for some copies folded together along the axis of the samples.

    Attributes:
        copies: Which copies.
        inputs: (layer, call) -> what it saw.
        encoded: Calls of which signs are kept in place of what they saw.
    """

    copies: slice
    inputs: dict[Site, Inputs] = field(default_factory=dict)
    encoded: set[Site] = field(default_factory=set)

    def keep(self, site: Site, inputs: Inputs, storing: Storing) -> None:
        """Keep what a call saw."""
        signs = storing.of_inputs(inputs)
        self.inputs[site] = inputs if signs is None else signs
        if signs is not None:
            self.encoded.add(site)


@dataclass
class Forward:
    """What an engine runs.

    Attributes:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        noise: Unit noise at each site, ``[n, *shape]``.
        first: Calls whose input is clean.
        graph: The traced forward; None to run the model itself.
        layout: Memory layout of images.
        halves: Of weight noise that antithetic pairs share, how many pairs each part of the copies has: first
            those with the noise as it is, then those with its negative. Empty if every copy has a row.
        storing: How noisy inputs are kept.
    """

    problem: Runnable
    draw: Draw
    layers: Sequence[Layer]
    noise: dict[Site, torch.Tensor]
    first: set[Site]
    graph: Graph | None = None
    layout: str = ""
    halves: tuple[int, ...] = ()
    storing: Storing = AS_IT_IS

    @property
    def copies(self) -> int:
        """How many copies."""
        return 2 * sum(self.halves) or len(next(iter(self.noise.values())))

    def later(self, call: Call) -> bool:
        """Whether the input of a call may carry noise."""
        return not self.draw.derived and (call.layer, call.number) not in self.first

    def keep(self, segment: Segment, call: Call) -> None:
        """Keep what a call saw, if its input may carry noise."""
        if self.later(call):
            inputs = (call.path, call.args, call.kwargs or {})
            segment.keep((call.layer, call.number), inputs, self.storing)


def site_shapes(problem: Runnable, draw: Draw, layer: Layer) -> list[tuple[int, ...]]:
    """Shape of one copy's noise at each site of a layer."""
    if draw.where == "activations":
        one = draw.share == "batch"
        return [(*s[: layer.axis], 1, *s[layer.axis + 1 :]) if one else s for s in layer.outputs]
    rows = (problem.batch_size,) if draw.share == "sample" else ()
    return [(*rows, *shape) for shape in layer.shapes]


def dtype_of(problem: Runnable, layer: Layer) -> torch.dtype:
    """Type of a layer's noise: that of its parameters, or a wider one; half precision would round sums."""
    return torch.promote_types(problem.parameters[layer.parameters[0]].dtype, torch.float32)


def add_noise(output: Any, draw: Draw, layer: str, noise: torch.Tensor) -> Any:
    """The output of a layer with ``sigma`` times unit noise on its first floating tensor."""
    tensor = first_tensor(output)
    assert tensor is not None
    return with_first_tensor(output, torch.add(tensor, noise.to(tensor.dtype), alpha=draw.sigma_of(layer)))


def noise_at(noise: Mapping[Site, torch.Tensor], call: Call) -> torch.Tensor:
    """The noise of a call.

    Raises:
        UsageError: There is none: the layer is called more often than without noise.
    """
    try:
        return noise[call.layer, call.number]
    except KeyError:
        raise _changed_calls(call.layer) from None


def check_calls(counts: Mapping[str, int], layers: Sequence[Layer]) -> None:
    """Refuse a forward whose calls are not those of the forward without noise.

    Raises:
        UsageError: They are not.
    """
    for layer in layers:
        if counts.get(layer.name, 0) != layer.calls:
            raise _changed_calls(layer.name)


def _changed_calls(layer: str) -> UsageError:
    return UsageError(
        f"layer {layer!r} is called a different number of times once noise is added; use weight noise there, or "
        "leave the layer out with layers=."
    )


def shifted(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], noise: Mapping[Site, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Parameters of the layers plus ``sigma`` times one copy's unit noise, in their own precision."""
    values = problem.parameters
    return {
        name: torch.add(values[name], noise[layer.name, number], alpha=draw.sigma_of(layer.name)).to(
            values[name].dtype
        )
        for layer in layers
        for number, name in enumerate(layer.parameters)
    }
