"""A spiking network: linear layers and leaky neurons over time steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from gradprobe.core.errors import UsageError, one_of, positive, whole
from gradprobe.core.optional import needs
from gradprobe.problems.networks import register

SURROGATES = {
    "fast_sigmoid": ("FastSigmoid", 25.0),
    "atan": ("ATan", 2.0),
    "sigmoid": ("Sigmoid", 25.0),
    "straight-through": ("StraightThroughEstimator", None),
}
"""Name -> snntorch's function of autograd, and its steepness there by default (None: it has none).

Its triangular one is left out: its derivative is negative above the threshold.
"""

READOUTS = ("membrane", "spikes")


@dataclass(frozen=True)
class Spike:
    """A threshold whose derivative is another function's; unlike snntorch's own closures it can be pickled.

    Attributes:
        name: Name of the function in ``snntorch.surrogate``.
        slope: Its steepness; None where it has none.
    """

    name: str
    slope: float | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """1 where x > 0, else 0, in the type of x."""
        function = getattr(_snntorch().surrogate, self.name)
        if self.slope is not None and self.name == "Sigmoid":
            # its derivative is exp(-slope x) over a square: NaN once that overflows, where it should be 0
            x = x.clamp(-40 / self.slope, 40 / self.slope)
        spikes = function.apply(x) if self.slope is None else function.apply(x, self.slope)
        return spikes.to(x.dtype)  # snntorch returns float32 whatever it is given


class Spiking(nn.Module):
    """``linears.0`` -> ``neurons.0`` -> ``linears.1`` -> ... over ``steps`` time steps.

    The input is the same current at every step (direct coding): the flattened pixels through the first linear
    layer. Noise on a linear layer's output is noise on the current of its neurons, before the threshold, at every
    step. Potentials are ``u <- beta u + current - (spike at the step before)``, threshold 1. The output is the sum
    over steps of the last neurons' potential (which then have no reset) or of their spikes.

    Args:
        inputs: Number of pixels.
        classes: Number of outputs.
        hidden: Neurons in each hidden layer.
        layers: Hidden layers.
        steps: Time steps.
        beta: Share of the potential that is left after a step.
        spike: The threshold.
        readout: ``"membrane"`` or ``"spikes"``.
        init_hidden: Whether neurons keep their potentials themselves: a forward begins with setting them to 0, and
            leaves the last ones behind. Otherwise it leaves none.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int,
        layers: int,
        steps: int,
        beta: float,
        spike: Spike,
        readout: str,
        init_hidden: bool,
    ) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * layers, classes]
        leaky = _snntorch().Leaky
        resets = ["subtract"] * layers + ["none" if readout == "membrane" else "subtract"]
        self.steps, self.spike, self.readout, self.init_hidden = steps, spike, readout, init_hidden
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.neurons = nn.ModuleList(
            leaky(beta, spike_grad=spike, reset_mechanism=reset, init_hidden=init_hidden, output=True)
            for reset in resets
        )

    def extra_repr(self) -> str:
        """What the submodules do not say."""
        return (
            f"steps={self.steps}, spike={self.spike}, readout={self.readout}, init_hidden={self.init_hidden}"
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, classes]``: sums over the time steps."""
        x = x.flatten(1)
        for neuron in cast(Iterable[Any], self.neurons):
            neuron.reset_mem()
        potentials: list[torch.Tensor | None] = [None] * len(self.neurons)
        total = x.new_zeros(())
        for _ in range(self.steps):
            signal = x
            for place, (linear, neuron) in enumerate(zip(self.linears, self.neurons, strict=True)):
                current = linear(signal)
                if self.init_hidden:
                    signal, potentials[place] = neuron(current)
                else:
                    before = potentials[place]
                    before = torch.zeros_like(current) if before is None else before
                    signal, potentials[place] = neuron(current, before)
            last = potentials[-1] if self.readout == "membrane" else signal
            assert last is not None
            total = total + last
        if (
            not self.init_hidden
        ):  # snntorch writes the potentials into buffers all the same; nobody needs them
            for neuron in cast(Iterable[Any], self.neurons):
                neuron.mem = neuron.mem.new_zeros(0)
        return total


@register(
    "snn", summary="spiking network (leaky neurons, direct coding) with a choice of surrogate; extra snn"
)
def snn(
    input_shape: Sequence[int],
    classes: int = 10,
    hidden: int = 64,
    layers: int = 2,
    steps: int = 8,
    beta: float = 0.9,
    surrogate: str = "fast_sigmoid",
    slope: float | None = None,
    readout: str = "membrane",
    init_hidden: bool = False,
) -> Spiking:
    """Build a :class:`Spiking`.

    Args:
        input_shape: Shape of one input; it is flattened.
        classes: Number of outputs.
        hidden: Neurons in each hidden layer.
        layers: Hidden layers; may be 0.
        steps: Time steps.
        beta: Share of the potential that is left after a step, 0 to 1.
        surrogate: Whose derivative backprop takes for the threshold's: fast_sigmoid, atan, sigmoid,
            straight-through. The forward pass is the same for all.
        slope: Steepness of the surrogate; snntorch's default for it without.
        readout: ``"membrane"`` (potential) or ``"spikes"`` (count) of the last neurons.
        init_hidden: Whether neurons keep their potentials themselves, as snntorch calls it.

    Raises:
        UsageError: snntorch is not installed, or an option is out of range.
    """
    _snntorch()
    one_of("surrogate", surrogate, tuple(SURROGATES))
    one_of("readout", readout, READOUTS)
    one_of("init_hidden", init_hidden, (False, True))
    name, usual = SURROGATES[surrogate]
    if slope is not None and usual is None:
        raise UsageError(f"surrogate {surrogate!r} has no slope; leave slope out.")
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
        raise UsageError(f"beta must be a number from 0 to 1, not {beta!r}.")
    return Spiking(
        math.prod(input_shape),
        whole("classes", classes),
        whole("hidden", hidden),
        whole("layers", layers, 0),
        whole("steps", steps),
        float(beta),
        Spike(name, usual if slope is None else positive("slope", slope)),
        readout,
        init_hidden,
    )


def _snntorch() -> ModuleType:
    return needs("snntorch", extra="snn", what="model 'snn'")
