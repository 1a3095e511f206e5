"""Catalogue of small problems: each layer type and each awkward way of using one, cheap enough for loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from gradprobe.problems.losses import find_loss
from gradprobe.problems.problem import Problem

Recipe = Callable[..., tuple]
CATALOGUE: dict[str, Recipe] = {}
"""Name -> function of a dtype that makes module, batch, loss (and options); the same ones each time."""


def small(function: Callable[[], tuple]) -> Callable[[], tuple]:
    """Enter a recipe ``() -> (module, batch, loss, options)``; it runs under a fixed seed of its own."""
    name = function.__name__.replace("_", "-")

    def make(dtype: torch.dtype = torch.float64, wrap: Callable | None = None) -> tuple:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sum(map(ord, name)))
            module, (inputs, target), loss, *options = function()
        batch = _cast(inputs, dtype), _cast(target, dtype)
        return module.to(dtype), batch, wrap(find_loss(loss)) if wrap else loss, *options

    CATALOGUE[name] = make
    return function


def build(name: str, dtype: torch.dtype = torch.float64, wrap: Callable | None = None) -> Problem:
    """A fresh problem of the catalogue.

    Args:
        name: Which one.
        dtype: Of its parameters and its batch.
        wrap: Turns its loss (a function of output and target) into another.
    """
    module, batch, loss, *options = CATALOGUE[name](dtype, wrap)
    return Problem(module, batch, loss, name=name, **(options[0] if options else {}))


def _cast(value, dtype):
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_cast(v, dtype) for v in value)
    return value.to(dtype) if value.is_floating_point() else value


def mean_square(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One loss for the whole copy."""
    return ((output - target) ** 2).mean()


class Lambda(nn.Module):
    """A function between layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# --- fully connected


@small
def linear():
    """Quadratic in every parameter."""
    return nn.Linear(3, 2), (torch.randn(4, 3), torch.randn(4, 2)), "mse"


@small
def mlp():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 3))
    return net, (torch.randn(4, 3), torch.tensor([0, 2, 1, 2])), "cross_entropy"


@small
def relu_mlp():
    """Inputs of later layers are exactly 0 in places: signs of the Jacobian are 0 there."""
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.normal_(net[2].weight)
    return net, (torch.randn(5, 3), torch.randn(5, 2)), "mse"


@small
def weighted():
    """Weights of the samples other than 1/B, one of them 0."""
    weights = torch.tensor([0.5, 0.0, 1.25, 2.0])
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    return net, (torch.randn(4, 2), torch.randn(4, 2)), "mse", {"weights": weights}


@small
def scalar_loss():
    """The loss is one number: the copy's."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    return net, (torch.randn(4, 2), torch.randn(4, 2)), mean_square


@small
def two_inputs():
    """Inputs by keyword, one of them added after the first layer."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x, *, shift):
            return self.second(torch.tanh(input=self.first(input=x) + shift))

    inputs = {"x": torch.randn(4, 2), "shift": torch.randn(4, 3)}
    return Net(), (inputs, torch.randn(4, 2)), "mse"


@small
def in_place_on_the_batch():
    """A model that overwrites its own input: here with the same values each time."""
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    return net, (torch.randn(4, 3), torch.randn(4, 2)), "mse"


@small
def forced_copy_loss():
    """Losses [B] with weights, read as one loss for the copy because the user says so."""
    options = {"loss_per": "copy", "weights": torch.tensor([0.5, 0.0, 1.25])}
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    return net, (torch.randn(3, 2), torch.randn(3, 2)), "mse", options


@small
def checkpointed():
    """Activation checkpointing runs layers a second time on the way back."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            x = torch.tanh(self.first(x))
            x = checkpoint(lambda t: torch.tanh(self.second(t)), x, use_reentrant=False)
            return self.head(x)

    return Net(), (torch.randn(3, 2), torch.randn(3, 2)), "mse"


# --- convolutions


@small
def cnn():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 2, groups=2, dilation=2, padding=1, padding_mode="circular"),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.3, 2.0)
    nn.init.normal_(net[1].weight)
    return net, (torch.randn(2, 2, 5, 5), torch.tensor([2, 0])), "cross_entropy"


@small
def residual_cnn():
    """A residual sum written into the layer's own output, and a layer kept in channels_last."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1, bias=False)
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            x = F.relu(self.stem(x), inplace=True).contiguous(memory_format=torch.channels_last)
            out = self.block(x)
            out += x
            return self.head(torch.tanh(out).mean((2, 3)))

    return Net(), (torch.randn(3, 1, 5, 5), torch.randn(3, 2)), "mse"


@small
def conv1d():
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3, stride=2, padding=2, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 2)
    )
    return net, (torch.randn(3, 2, 6), torch.randn(3, 2)), "mse"


@small
def conv3d():
    net = nn.Sequential(
        nn.Conv3d(1, 2, (1, 2, 2), stride=(1, 2, 1), padding=(1, 0, 0)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    return net, (torch.randn(2, 1, 2, 3, 3), torch.randn(2, 2)), "mse"


@small
def transposed1d():
    net = nn.Sequential(
        nn.ConvTranspose1d(2, 2, 3, stride=2, output_padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
    )
    return net, (torch.randn(2, 2, 2), torch.randn(2, 2)), "mse"


@small
def transposed2d():
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 2, stride=2, padding=1, groups=2, bias=False), nn.Tanh(), nn.Flatten()
    )
    return net, (torch.randn(2, 2, 3, 2), torch.randn(2, 32)), "mse"


@small
def transposed3d():
    net = nn.Sequential(nn.ConvTranspose3d(1, 2, (2, 1, 2), dilation=(1, 1, 2)), nn.Tanh(), nn.Flatten())
    return net, (torch.randn(2, 1, 2, 2, 1), torch.randn(2, 36)), "mse"


# --- normalisation


@small
def layer_norm():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2))
    nn.init.normal_(net[1].weight)
    return net, (torch.randn(3, 2, 3), torch.randn(3, 2, 2)), "mse"


@small
def layer_norm_2d():
    """Normalises the last two axes; no bias."""
    net = nn.Sequential(nn.LayerNorm((2, 3), bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2))
    nn.init.normal_(net[0].weight)
    return net, (torch.randn(3, 2, 3), torch.randn(3, 2)), "mse"


@small
def group_norm():
    net = nn.Sequential(nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2))
    nn.init.normal_(net[1].weight)
    return net, (torch.randn(2, 1, 3, 3), torch.randn(2, 2)), "mse"


@small
def batch_norm():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.3, 2.0)
    nn.init.normal_(net[1].weight)
    return net, (torch.randn(4, 2), torch.randn(4, 2)), "mse"


@small
def train_batch_norm():
    """Batch statistics: one loss per copy, and buffers that every forward changes."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)).train()
    nn.init.normal_(net[1].weight)
    return net, (torch.randn(5, 2), torch.randn(5, 2)), "mse", {"mode": "as-is"}


@small
def other_norms():
    """RMSNorm over two axes, InstanceNorm with and without running statistics, BatchNorm1d on [B, C, L]."""
    net = nn.Sequential(
        nn.RMSNorm((2, 3)),
        nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.BatchNorm1d(2),
        nn.Tanh(),
        nn.InstanceNorm1d(2, affine=True),
    )
    for norm in (net[0], net[1], net[3], net[5]):
        nn.init.normal_(norm.weight)
    net[1].running_mean.normal_()
    net[3].running_var.uniform_(0.3, 2.0)
    return net, (torch.randn(3, 2, 3), torch.randn(3, 2, 3)), "mse"


# --- sequences


@small
def sequence():
    """Linear layers on [B, T, D]: noise and signs at each time step."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    return net, (torch.randn(3, 4, 2), torch.randn(3, 4, 2)), "mse"


@small
def embedding():
    net = nn.Sequential(
        nn.Embedding(5, 3, padding_idx=0), nn.Tanh(), Lambda(lambda x: x.mean(1)), nn.Linear(3, 3)
    )
    words = torch.tensor([[1, 4, 1, 0], [2, 2, 2, 3], [0, 1, 3, 4]])
    return net, (words, torch.tensor([0, 1, 2])), "cross_entropy"


@small
def positional():
    """Outputs whose first axis is not the batch: one shared by all samples, one with B * T rows."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.mix, self.head = nn.Embedding(3, 2), nn.Linear(2, 2), nn.Linear(6, 2)

        def forward(self, x):
            x = torch.tanh(x + self.place(torch.arange(x.shape[1])))
            x = torch.tanh(self.mix(x.flatten(0, 1))).view(x.shape)
            return self.head(x.flatten(1))

    return Net(), (torch.randn(4, 3, 2), torch.randn(4, 2)), "mse"


@small
def one_sample():
    """A batch of one, where a layer's output [1, T, D] looks like a sample's but is built inside the model."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.word, self.place, self.head = nn.Embedding(4, 2), nn.Embedding(3, 2), nn.Linear(2, 2)

        def forward(self, words):
            places = torch.arange(words.shape[1])[None]
            return self.head(torch.tanh(self.word(words) + self.place(places)).mean(1))

    return Net(), (torch.tensor([[3, 0, 3]]), torch.randn(1, 2)), "mse"


@small
def tied_language_model():
    """The embedding's weight is the output layer's too: one layer of two types."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(4, 3), nn.Linear(3, 3)
            self.unembed = nn.Linear(3, 4, bias=False)
            self.unembed.weight = self.embed.weight

        def forward(self, words):
            return self.unembed(torch.tanh(self.mix(self.embed(words))).mean(1))

    return Net(), (torch.tensor([[1, 3, 1], [0, 2, 3]]), torch.tensor([2, 0])), "cross_entropy"


@small
def sparse_embedding():
    """Backprop gives sparse gradients here."""
    net = nn.Sequential(nn.Embedding(4, 2, sparse=True), nn.Flatten(), nn.Tanh(), nn.Linear(4, 2))
    return net, (torch.tensor([[0, 1], [3, 3]]), torch.randn(2, 2)), "mse"


@small
def parameter_list():
    """Parameters in a ParameterList: its owner is never called."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList([nn.Parameter(torch.randn(2)) for _ in range(2)])
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return self.head(torch.tanh(x * self.scales[0]) * self.scales[1])

    return Net(), (torch.randn(3, 2), torch.randn(3, 2)), "mse"


@small
def recurrent():
    """One layer called three times in a forward."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, x):
            h = x.new_zeros(len(x), 2)
            for t in range(3):
                h = torch.tanh(self.cell(torch.cat([x[:, t], h], 1)))
            return self.head(h)

    return Net(), (torch.randn(4, 3, 1), torch.randn(4, 2)), "mse"


@small
def scalar_recurrence():
    """h <- w h, three times, without a bias or a nonlinearity: the smallest reused layer."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.cell.weight, 0.9)

        def forward(self, x):
            return self.cell(self.cell(self.cell(x)))

    return Net(), (torch.tensor([[1.0], [-0.5]]), torch.zeros(2, 1)), "mse"


@small
def repeated_module():
    """One module under two names, called twice."""
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.Tanh(), shared, nn.ReLU(inplace=True), nn.Linear(2, 2))
    return net, (torch.randn(4, 2), torch.randn(4, 2)), "mse"


@small
def attention():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.attend(x, x, x, need_weights=False)[0]).mean(1))

    return Net(), (torch.randn(2, 3, 4), torch.randn(2, 2)), "mse"


# --- recurrent modules: their steps take the noise


class Recurrent(nn.Module):
    """A recurrent module, what is used of its output, and a linear layer."""

    def __init__(self, module, width, pick):
        super().__init__()
        self.rnn, self.head, self.pick = module, nn.Linear(width, 2), pick

    def forward(self, x):
        return self.head(self.pick(self.rnn(x)))


@small
def lstm():
    """The final hidden state is used."""
    net = Recurrent(nn.LSTM(2, 2, batch_first=True), 2, lambda out: out[1][0][0])
    return net, (torch.randn(3, 3, 2), torch.randn(3, 2)), "mse"


@small
def lstm_outputs():
    """The outputs at all steps are used; time comes first in the inputs, and there are no biases."""
    net = Recurrent(nn.LSTM(2, 2, bias=False), 2, lambda out: out[0].transpose(0, 1))
    return net, (torch.randn(3, 2, 2), torch.randn(2, 3, 2)), "mse"


@small
def gru():
    """A classifier on the last output."""
    net = Recurrent(nn.GRU(1, 2, batch_first=True), 2, lambda out: out[0][:, -1])
    return net, (torch.randn(2, 2, 1), torch.tensor([0, 1])), "cross_entropy"


@small
def packed_rnn():
    """Two directions over sequences of several lengths; each goes backwards from its own end."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(1, 1, bidirectional=True, batch_first=True)

        def forward(self, x, lengths):
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.rnn(x)[1].transpose(0, 1).flatten(1)

    inputs = {"x": torch.randn(3, 2, 1), "lengths": torch.tensor([2, 1, 2])}
    return Net(), (inputs, torch.randn(3, 2)), "mse"


@small
def cells():
    """An LSTM cell and a plain one, called step by step by the model itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lower, self.upper = nn.LSTMCell(1, 2), nn.RNNCell(2, 1, nonlinearity="relu")

        def forward(self, x):
            state, h = None, x.new_zeros(len(x), 1)
            for t in range(2):
                state = self.lower(x[:, t], state)
                h = self.upper(state[0], h)
            return h

    return Net(), (torch.randn(3, 2, 1), torch.randn(3, 1)), "mse"


@small
def fused_rnn():
    """The model reads its recurrent module's weights itself: the module stays as it is."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(2, 2, batch_first=True), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[1][0] @ self.rnn.weight_hh_l0)

    return Net(), (torch.randn(3, 2, 2), torch.randn(3, 2)), "mse"


# --- parameters used in unusual ways


@small
def tied():
    """An encoder and a decoder that share a weight (as the decoder's own), each with its bias."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(3, 3), nn.Linear(3, 3)
            self.down.weight = self.up.weight
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.down(torch.tanh(self.up(x)))))

    return Net(), (torch.randn(4, 3), torch.randn(4, 2)), "mse"


@small
def own_parameter():
    """A module with an odd formula of its own: only the generic rule fits."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(()))

        def forward(self, x):
            return torch.sin(x * self.a) + self.b * x**2 * self.a.prod()

    return nn.Sequential(Odd(), nn.Linear(3, 2)), (torch.randn(4, 3), torch.randn(4, 2)), "mse"


@small
def root_parameter():
    """Parameters of the model itself beside those of its layers; the first layer of all holds the others."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.inner = nn.Parameter(torch.randn(2)), nn.Linear(2, 2)

        def forward(self, x):
            return torch.tanh(self.inner(x)) * self.scale

    return Net(), (torch.randn(4, 2), torch.randn(4, 2)), "mse"


@small
def never_runs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare, self.head = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.used(x)))

    return Net(), (torch.randn(3, 2), torch.randn(3, 2)), "mse"


@small
def functional_weight():
    """``fc`` is called and its weight is used past the call too; ``only`` is never called, its weight is."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.only, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            x = torch.tanh(self.fc(x)) + F.linear(x, self.fc.weight)
            return self.head(torch.tanh(F.linear(x, self.only.weight, self.only.bias)))

    return Net(), (torch.randn(4, 2), torch.randn(4, 2)), "mse"


@small
def weight_norm():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 2))
    return net, (torch.randn(3, 2), torch.randn(3, 2)), "mse"


@small
def frozen_parameter():
    """One layer that the user froze: probed all the same."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    return net, (torch.randn(3, 2), torch.randn(3, 2)), "mse"


@small
def max_norm():
    """A forward that rescales its own weights in place."""
    net = nn.Sequential(nn.Embedding(4, 2, max_norm=0.5), nn.Flatten(), nn.Linear(4, 2))
    return net, (torch.tensor([[0, 1], [3, 3], [2, 0]]), torch.randn(3, 2)), "mse"


# --- batches, outputs and states of other kinds


@small
def time_major():
    """Samples along axis 1, mixed over time, so that rows of axis 0 are no samples."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x):
            h = torch.tanh(self.first(x))
            return self.second(h + h.flip(0) * h.mean(0)).mean(0)

    return Net(), (torch.randn(3, 4, 2), torch.randn(4, 2)), "mse"


@small
def square_time_major():
    """As many steps as samples: the axis is found by what moves."""
    model, (inputs, target), loss = time_major()
    return model, (torch.cat([inputs, inputs[:1] ** 2]), target), loss


@dataclasses.dataclass
class Rich:
    """What a model of other libraries returns."""

    hidden: torch.Tensor
    logits: torch.Tensor


@small
def rich_outputs():
    """Inputs and inner outputs are dicts and dataclasses; the loss is given the logits."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))

        def forward(self, parts):
            return {"kept": 1, "h": parts["x"] @ self.weight, "twice": parts["x"].sum(1)}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = Inner(), nn.Linear(3, 2)

        def forward(self, *, parts):
            h = torch.tanh(self.inner(parts)["h"])
            return Rich(h, self.head(h))

    return (
        Net(),
        ({"parts": {"x": torch.randn(4, 2)}}, torch.tensor([0, 1, 1, 0])),
        "cross_entropy",
        {"output": "logits"},
    )


@small
def stateful():
    """A potential that is kept from one forward to the next, as an attribute, and one as a buffer."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
            self.potential, self.log = None, []
            self.register_buffer("trace", torch.zeros(()))

        def forward(self, x):
            h = self.first(x)
            self.potential = h if self.potential is None else 0.5 * self.potential + h
            self.trace = self.trace + self.potential.mean()
            self.log.append(self.potential)
            return self.second(torch.tanh(self.potential) + self.trace * len(self.log))

    return Net(), (torch.randn(4, 2), torch.randn(4, 2)), mean_square
