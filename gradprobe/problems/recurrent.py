"""Recurrent modules step by step: each step's gate pre-activations are the output of a module of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence

State = tuple[torch.Tensor, ...]
"""(hidden state,), or (hidden state, cell state), of one layer and direction: each ``[B, H]``."""


class Gates(nn.Module):
    """All gate pre-activations of one step, before any nonlinearity: ``W_ih x + b_ih + W_hh h + b_hh``.

    It holds the parameters of one layer and direction, and everything that they do passes through its output:
    one noise per step serves them all, and the entries of its Jacobian are those of ``x`` and ``h``.

    Args:
        parameters: ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``; the biases may be None.
    """

    weight_ih: torch.Tensor
    weight_hh: torch.Tensor
    bias_ih: torch.Tensor | None
    bias_hh: torch.Tensor | None

    def __init__(self, parameters: Mapping[str, nn.Parameter | None]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Pre-activations ``[B, gates * H]`` of input ``[B, D]`` and hidden state ``[B, H]``."""
        return F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)

    def next(self, gates: torch.Tensor, state: State) -> State:
        """The state after the step."""
        raise NotImplementedError


class LSTMGates(Gates):
    """Input, forget, cell and output gate: ``[B, 4H]``."""

    def next(self, gates: torch.Tensor, state: State) -> State:
        """``c' = f c + i g`` and ``h' = o tanh(c')``."""
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GRUGates(Gates):
    """Reset and update gate, then what input and state give the new gate: ``[B, 4H]``.

    The last two are apart because the reset gate multiplies one of them alone.
    """

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``[W_ir x + b_ir + W_hr h + b_hr, the same for z, W_in x + b_in, W_hn h + b_hn]``."""
        size = 2 * h.shape[-1]
        ours, theirs = F.linear(x, self.weight_ih, self.bias_ih), F.linear(h, self.weight_hh, self.bias_hh)
        both = ours[..., :size] + theirs[..., :size]
        return torch.cat([both, ours[..., size:], theirs[..., size:]], -1)

    def next(self, gates: torch.Tensor, state: State) -> State:
        """``n = tanh(n_x + r n_h)`` and ``h' = (1 - z) n + z h``."""
        r, z, of_input, of_state = gates.chunk(4, -1)
        n, z = torch.tanh(of_input + torch.sigmoid(r) * of_state), torch.sigmoid(z)
        return ((1 - z) * n + z * state[0],)


class RNNGates(Gates):
    """The one pre-activation of a plain recurrent layer: ``[B, H]``."""

    rectified = False

    def next(self, gates: torch.Tensor, state: State) -> State:
        """``h' = tanh(gates)`` or ``relu(gates)``."""
        return (torch.relu(gates) if self.rectified else torch.tanh(gates),)


def gates_of(fused: nn.Module, part: str = "") -> Gates:
    """The gates of a recurrent module of torch, with its own parameters.

    Args:
        fused: The module.
        part: How the names of the parameters end, such as ``"_l0_reverse"``.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    parameters = {name: fused._parameters.get(name + part) for name in names}
    if isinstance(fused, (nn.LSTM, nn.LSTMCell)):
        return LSTMGates(parameters)
    if isinstance(fused, (nn.GRU, nn.GRUCell)):
        return GRUGates(parameters)
    gates = RNNGates(parameters)
    gates.rectified = fused.nonlinearity == "relu"
    return gates


class Recurrent(nn.Module):
    """What stands in a recurrent module's place: its options under their names, its hooks, its mode."""

    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    batch_first: bool
    bidirectional: bool

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.__dict__.update({k: v for k, v in vars(fused).items() if not k.startswith("_")})
        for name, hooks in vars(fused).items():
            if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
                getattr(self, name).update(hooks)

    def flatten_parameters(self) -> None:
        """Nothing: there is no fused operation whose weights would have to lie side by side."""


class UnrolledCell(Recurrent):
    """``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``; its submodule ``gates`` takes the noise."""

    def __init__(self, fused: nn.RNNCellBase) -> None:
        super().__init__(fused)
        self.gates = gates_of(fused)
        self.train(fused.training)

    def forward(self, input: torch.Tensor, hx: Any = None) -> Any:
        """The next hidden state, or hidden and cell state: as torch has it."""
        x, two = torch.atleast_2d(input), isinstance(self.gates, LSTMGates)
        if hx is None:
            state: State = (x.new_zeros(len(x), self.hidden_size),) * (1 + two)
        else:
            state = tuple(torch.atleast_2d(h) for h in (hx if two else (hx,)))
        new = self.gates.next(self.gates(x, state[0]), state)
        new = new if input.ndim == 2 else tuple(h.squeeze(0) for h in new)
        return new if two else new[0]


class Unrolled(Recurrent):
    """``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` as a loop over time.

    Submodules ``l0``, ``l0_reverse``, ``l1``, ... are the gates of each layer and direction, and ``l0_projection``,
    ... the projections of an LSTM with ``proj_size``. They see the samples in the order of the batch, also those
    of a packed sequence; steps past a sequence's end run and are thrown away.
    """

    def __init__(self, fused: nn.RNNBase) -> None:
        super().__init__(fused)
        self.parts = [
            f"l{layer}{way}"
            for layer in range(self.num_layers)
            for way in (("", "_reverse") if self.bidirectional else ("",))
        ]
        for part in self.parts:
            self.add_module(part, gates_of(fused, f"_{part}"))
            projection = fused._parameters.get(f"weight_hr_{part}")
            if projection is not None:
                linear = nn.Linear(1, 1, bias=False, device="meta")
                linear.in_features, linear.out_features = self.hidden_size, self.proj_size
                linear.weight = projection
                self.add_module(f"{part}_projection", linear)
        self.train(fused.training)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Outputs of all steps and the last state, as torch has them."""
        steps = Packed(input) if isinstance(input, PackedSequence) else Steps(input, self.batch_first)
        x, alive, two = steps.x, steps.alive, self.mode == "LSTM"
        if hx is None:
            sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: 1 + two]
            start: State = tuple(x.new_zeros(len(self.parts), x.shape[1], size) for size in sizes)
        else:
            start = tuple(h if h.ndim == 3 else h[:, None] for h in (hx if two else (hx,)))
        last, ways = [], 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            outputs = []
            for way in range(ways):
                number = layer * ways + way
                state = tuple(h[number] for h in start)
                output, state = self._scan(self.parts[number], x, alive, state, backwards=way == 1)
                outputs.append(output)
                last.append(state)
            x = torch.cat(outputs, -1)
        end = tuple(torch.stack(each) for each in zip(*last, strict=True))
        end = tuple(h.squeeze(1) for h in end) if steps.unbatched else end
        return steps.back(x), end if two else end[0]

    def _scan(
        self, part: str, x: torch.Tensor, alive: torch.Tensor | None, state: State, backwards: bool
    ) -> tuple[torch.Tensor, State]:
        """Hidden states ``[T, B, H]`` of one layer and direction, and its last state."""
        gates = self._modules[part]
        assert isinstance(gates, Gates)
        projection = self._modules.get(f"{part}_projection")
        found, times = [], range(len(x))
        for t in reversed(times) if backwards else times:
            seen = state[0] if alive is None else torch.where(alive[t], state[0], 0)
            h, *rest = gates.next(gates(x[t], seen), state)
            new = (h if projection is None else projection(h), *rest)
            if alive is not None:
                new = tuple(torch.where(alive[t], n, old) for n, old in zip(new, state, strict=True))
            state = new
            found.append(state[0])
        return torch.stack(found[::-1] if backwards else found), state


class Steps:
    """A sequence as ``[T, B, D]``, and the way back.

    Attributes:
        x: The steps.
        alive: Which samples have each step ``[T, B, 1]``; None if all have all.
        unbatched: Whether there is no batch axis.
    """

    alive: torch.Tensor | None = None

    def __init__(self, given: torch.Tensor, batch_first: bool) -> None:
        self.unbatched = given.ndim == 2
        self.batch_first = batch_first and not self.unbatched
        self.x = given[:, None] if self.unbatched else given.transpose(0, 1) if batch_first else given

    def back(self, x: torch.Tensor) -> Any:
        """Outputs ``[T, B, H]`` in the shape of what was given."""
        return x.squeeze(1) if self.unbatched else x.transpose(0, 1) if self.batch_first else x


class Packed(Steps):
    """A packed sequence: its samples in the order of the batch.

    Past its end a sequence is 0, and its gates see no state: noise there moves no loss, and like this it is not
    pulled back to the weights (the biases' share of it has mean 0).
    """

    def __init__(self, given: PackedSequence) -> None:
        self.given, self.unbatched = given, False
        sizes = given.batch_sizes.to(given.data.device)
        place = given.unsorted_indices  # where a sample stands among the sorted ones
        if place is None:
            place = torch.arange(int(given.batch_sizes[0]), device=sizes.device)
        alive = place < sizes[:, None]
        self.rows = torch.where(alive, (sizes.cumsum(0) - sizes)[:, None] + place, 0)
        self.alive = alive[..., None]
        self.x = torch.where(self.alive, given.data[self.rows], 0)

    def back(self, x: torch.Tensor) -> Any:
        """Outputs ``[T, B, H]`` packed as what was given."""
        assert self.alive is not None
        count = len(self.given.data)
        order = torch.where(self.alive[..., 0], self.rows, count).flatten().argsort()[:count]
        return PackedSequence(
            x.flatten(0, 1)[order],
            self.given.batch_sizes,
            self.given.sorted_indices,
            self.given.unsorted_indices,
        )
