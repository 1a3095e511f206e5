"""Recurrent modules taken apart into steps give what torch's give, under the user's names, or stay as they are."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from gradprobe import Problem, estimate
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.layers.find import find_layers
from gradprobe.probes.parcel import pack, unpack
from gradprobe.problems.recurrent import Unrolled, UnrolledCell
from gradprobe.problems.unrolling import unrolled
from tests.truth.checks import check_draw, layers_of
from tests.truth.trace import module_state


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(kind: type[nn.Module], *sizes: int, seed: int = 0, **options) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*sizes, **options).double()


def flat(output) -> list[torch.Tensor]:
    if isinstance(output, (tuple, list)):
        return [t for part in output if part is not None for t in flat(part)]
    return [output]


def assert_equal(mine: nn.Module, theirs: nn.Module, *args) -> None:
    """Same structure, outputs and gradients of parameters and inputs; the parameters are the same objects."""
    inputs = [t for t in flat(args) if t.is_floating_point()]
    parameters = dict(theirs.named_parameters())
    assert {id(p) for p in mine.parameters()} == {id(p) for p in parameters.values()}
    found = []
    for module in (mine, theirs):
        output = module(*args)
        values = [t for t in flat(output) if t.is_floating_point()]
        total = sum((t * randn(*t.shape, seed=k)).sum() for k, t in enumerate(values))
        found.append((output, torch.autograd.grad(total, [*parameters.values(), *inputs])))
    (ours, one), (wanted, other) = found
    assert _structure(ours) == _structure(wanted)
    for a, b in zip(flat(ours) + list(one), flat(wanted) + list(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def _structure(output):
    if isinstance(output, (tuple, list)):
        return type(output), tuple(_structure(part) for part in output)
    return None if output is None else (output.shape, output.dtype)


WHOLE = [
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 2}),
    (nn.GRU, {}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


def start_of(module: nn.Module, *batch: int):
    count = module.num_layers * (1 + module.bidirectional)
    hidden = randn(count, *batch, module.proj_size or module.hidden_size, seed=3).requires_grad_()
    if not isinstance(module, nn.LSTM):
        return hidden
    return hidden, randn(count, *batch, module.hidden_size, seed=4).requires_grad_()


@pytest.mark.parametrize(("kind", "options"), WHOLE, ids=str)
@pytest.mark.parametrize("shape", ["batch_first", "time_first", "unbatched", "packed", "packed_sorted"])
def test_sequences_give_what_torch_gives(kind, options, shape):
    """All of layers, directions, biases and given or missing initial states, for one layout of the input."""
    for layers, bidirectional, bias, given_state in itertools.product((1, 2), *((False, True),) * 3):
        module = made(
            kind,
            3,
            4,
            num_layers=layers,
            bidirectional=bidirectional,
            bias=bias,
            batch_first=shape in ("batch_first", "unbatched", "packed"),
            **options,
        )
        x = randn(5, 3) if shape == "unbatched" else randn(5, 5, 3)
        x.requires_grad_()
        start = (start_of(module, *(() if shape == "unbatched" else (5,))),) if given_state else ()
        if shape.startswith("packed"):
            lengths = torch.tensor([5, 4, 4, 2, 1] if shape == "packed_sorted" else [2, 5, 1, 4, 4])
            packed = pack_padded_sequence(
                x, lengths, batch_first=module.batch_first, enforce_sorted=shape == "packed_sorted"
            )
            assert_packed_equal(module, packed, x, start)
        else:
            assert_equal(Unrolled(module), module, x, *start)


def assert_packed_equal(module: nn.Module, packed: PackedSequence, x: torch.Tensor, start: tuple) -> None:
    """The same with the rows of the packed data as the input."""

    class Inside(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, data, *start):
            return self.inner(packed._replace(data=data), *start)

    assert_equal(Inside(Unrolled(module)), Inside(module), packed.data.detach().requires_grad_(), *start)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(nn.LSTMCell, {}), (nn.GRUCell, {}), (nn.RNNCell, {}), (nn.RNNCell, {"nonlinearity": "relu"})],
    ids=str,
)
def test_cells_give_what_torch_gives(kind, options):
    for bias, batched, given_state in itertools.product((True, False), repeat=3):
        module = made(kind, 3, 4, bias=bias, **options)
        batch = (5,) if batched else ()
        h, c = (randn(*batch, 4, seed=k).requires_grad_() for k in (1, 2))
        state = () if not given_state else (((h, c),) if kind is nn.LSTMCell else (h,))
        assert_equal(UnrolledCell(module), module, randn(*batch, 3).requires_grad_(), *state)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    which=st.sampled_from(WHOLE),
    sizes=st.tuples(*(st.integers(1, 4),) * 4),
    hidden=st.integers(3, 4),
    layers=st.integers(1, 3),
    flags=st.tuples(*(st.booleans(),) * 3),
)
def test_sequences_of_any_size(which, sizes, hidden, layers, flags):
    kind, options = which
    steps, batch, width, seed = sizes
    names = dict(zip(("bias", "batch_first", "bidirectional"), flags, strict=True))
    module = made(kind, width, hidden, seed=seed, num_layers=layers, **names, **options)
    assert_equal(Unrolled(module), module, randn(steps, batch, width, seed=seed).requires_grad_())


# --- inside a problem


class Net(nn.Module):
    """A recurrent module between functions, and a linear layer."""

    def __init__(self, rnn: nn.Module, use=lambda rnn, x: rnn(x)[0]) -> None:
        super().__init__()
        self.rnn, self.use, self.head = rnn, use, made(nn.Linear, 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.use(self.rnn, x)).mean(1)


def problem_of(rnn: nn.Module, *use, **options) -> Problem:
    return Problem(Net(rnn, *use), (randn(3, 4, 2), randn(3, 2)), "mse", **options)


def rnn_layers(problem: Problem) -> list[Layer]:
    return [x for x in find_layers(problem).layers if x.name.startswith("rnn")]


def lstm(**options) -> nn.LSTM:
    return made(nn.LSTM, 2, 4, batch_first=True, **options)


def test_layers_and_parameters_have_the_users_names():
    problem = problem_of(made(nn.LSTM, 2, 4, 2, batch_first=True, bidirectional=True, proj_size=2))
    parts = ("l0", "l0_reverse", "l1", "l1_reverse")
    layers = {x.name: x for x in rnn_layers(problem)}
    assert list(layers) == [f"rnn.{p}{end}" for p in parts for end in ("", "_projection")]
    for p in parts:
        gates = tuple(f"rnn.{n}_{p}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        assert layers[f"rnn.{p}"].parameters == gates
        assert layers[f"rnn.{p}_projection"].parameters == (f"rnn.weight_hr_{p}",)
        assert layers[f"rnn.{p}"].kind == "LSTMGates"
        assert layers[f"rnn.{p}"].outputs == ((3, 16),) * 4
    assert list(problem.parameters) == [name for name, _ in problem.module.named_parameters()]
    assert problem.fused == {}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_cells_are_layers_of_their_own(kind):
    first = (lambda state: state[0]) if kind is nn.LSTMCell else (lambda state: state)
    problem = problem_of(made(kind, 2, 4), lambda cell, x: first(cell(x[:, 0]))[:, None])
    (layer,) = rnn_layers(problem)
    assert (layer.name, layer.kind, layer.calls) == ("rnn.gates", f"{kind.__name__[:-4]}Gates", 1)
    assert layer.parameters == tuple(f"rnn.{n}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))


def test_a_model_that_is_itself_recurrent():
    def loss(output, target):
        return ((output[0] - target) ** 2).mean((1, 2))

    module = lstm()
    problem = Problem(module, (randn(3, 4, 2), randn(3, 4, 4)), loss)
    (layer,) = find_layers(problem).layers
    assert (layer.name, layer.parameters) == ("l0", tuple(n for n, _ in module.named_parameters()))
    assert set(estimate(problem, "lr", copies=4, block=2)) == set(layer.parameters)


def test_one_module_under_two_names():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = self.b = made(nn.RNN, 2, 2, batch_first=True)

        def forward(self, x):
            return self.b(self.a(x)[0])[0].sum(1)

    problem = Problem(Two(), (randn(3, 4, 2), randn(3, 2)), "mse")
    (layer,) = find_layers(problem).layers
    assert (layer.name, layer.calls, problem.fused) == ("a.l0", 8, {})
    moved = {n: v + 0.3 for n, v in problem.parameters.items()}
    other = Two()
    other.load_state_dict(moved | {n.replace("a.", "b."): v for n, v in moved.items()})
    want = ((other(problem.inputs) - problem.target) ** 2).mean(1)
    torch.testing.assert_close(problem.at(moved).clean_losses(), want.detach(), rtol=1e-12, atol=1e-12)


def test_tied_biases_are_one_parameter():
    module = lstm()
    module.bias_hh_l0 = module.bias_ih_l0
    problem = problem_of(module)
    (layer,) = rnn_layers(problem)
    assert layer.parameters == ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0")


def test_the_users_module_is_left_alone():
    module = Net(lstm())
    before = module_state(module)
    problem = Problem(module, (randn(3, 4, 2), randn(3, 2)), "mse")
    assert module_state(module) == before
    assert type(module.rnn) is nn.LSTM
    assert isinstance(problem.twin.rnn, Unrolled)


def test_options_can_be_read_and_flattening_does_nothing():
    def use(rnn, x):
        rnn.flatten_parameters()
        zeros = x.new_zeros(rnn.num_layers * (1 + rnn.bidirectional), len(x), rnn.hidden_size)
        return rnn(x, (zeros, zeros))[0] * rnn.mine

    module = lstm()
    module.mine = 2.0
    assert problem_of(module, use).fused == {}


def test_hooks_of_the_user_go_on_running():
    def double(module, args, kwargs, output):
        return (2 * output[0], output[1])

    plain, hooked = problem_of(lstm()), lstm()
    hooked.register_forward_hook(double, with_kwargs=True)
    hooked.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    problem = problem_of(hooked)
    assert problem.fused == {}
    torch.testing.assert_close(
        problem.clean_losses(),
        Problem(problem.module, (problem.inputs, problem.target), "mse").clean_losses(),
    )
    want = ((problem.module(problem.inputs) - problem.target) ** 2).mean(1).detach()
    torch.testing.assert_close(problem.clean_losses(), want, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(problem.clean_losses(), plain.clean_losses())


# --- modules that stay fused


class Own(nn.LSTM):
    """A forward of its own."""

    def forward(self, x, hx=None):
        return super().forward(2 * x, hx)


def with_backward_hook() -> nn.LSTM:
    module = lstm()
    module.register_full_backward_hook(lambda *args: None)
    return module


def with_buffer() -> nn.LSTM:
    module = lstm()
    module.register_buffer("scale", torch.ones(()))
    return module


def other_forward() -> nn.LSTM:
    module = lstm()
    module.forward = type(module).forward.__get__(module)
    return module


class Hidden(nn.Module):
    """Calls its recurrent module through a list."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = lstm(), made(nn.Linear, 4, 2)
        self.every = [self.rnn]

    def forward(self, x):
        return self.head(self.every[0](x)[0]).mean(1)


STAYS = {
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(lstm(), "weight_hh_l0"),
        None,
        "made from others",
    ),
    "buffer": (with_buffer, None, "more than its weights"),
    "backward hook": (with_backward_hook, None, "backward hooks"),
    "other forward": (other_forward, None, "forward was replaced"),
    "weights read": (lstm, lambda rnn, x: rnn(x)[0] * rnn.weight_hh_l0.norm(), "fails with AttributeError"),
    "type asked": (
        lstm,
        lambda rnn, x: rnn(x)[0] * (2 if isinstance(rnn, nn.LSTM) else 1),
        "the model's losses change",
    ),
    "wrong steps": (lstm, lambda rnn, x: rnn(x + isinstance(rnn, nn.LSTM))[0], "other outputs"),
}


@pytest.mark.filterwarnings("ignore:Full backward hook")  # torch says when it fires, which is not at issue
@pytest.mark.parametrize("name", list(STAYS))
def test_what_cannot_be_taken_apart_stays_fused(name):
    make, use, why = STAYS[name]
    problem = problem_of(make(), *([use] if use else []))
    assert why in problem.fused["rnn"]
    assert not any(isinstance(m, Unrolled) for m in problem.twin.modules())
    (layer,) = rnn_layers(problem)
    assert layer.name == "rnn"
    assert layer.note.startswith("its steps are hidden in one fused operation (")
    assert why in layer.note
    assert layer.note.endswith(": noise on its outputs alone" if layer.activations else ": weight noise only")
    want = ((problem.module.eval()(problem.inputs) - problem.target) ** 2).mean(1).detach()
    torch.testing.assert_close(problem.clean_losses(), want)


def test_a_module_held_out_of_sight_stays_fused():
    problem = Problem(Hidden(), (randn(3, 4, 2), randn(3, 2)), "mse")
    assert "holds it where it cannot be replaced" in problem.fused["rnn"]


def test_weight_noise_only_is_what_a_fused_state_gets():
    problem = problem_of(lstm(), lambda rnn, x: rnn(x)[1][0][0][:, None] * rnn.weight_ih_l0[0, 0])
    (layer,) = rnn_layers(problem)
    assert not layer.activations
    assert layer.note.endswith("weight noise only")


def test_a_subclass_with_a_forward_of_its_own_is_left_alone():
    problem = problem_of(made(Own, 2, 4, batch_first=True))
    assert problem.fused == {}
    assert type(problem.twin.rnn) is Own


def test_dropout_counts_only_in_training():
    module = lstm(num_layers=2, dropout=0.5)
    problem = problem_of(module)
    assert problem.fused == {}
    assert [x.name for x in rnn_layers(problem)] == ["rnn.l0", "rnn.l1"]
    same, why = unrolled(module.train(), lambda m: m(randn(3, 4, 2))[0])
    assert same is module
    assert why == {"": "it drops units between its layers"}


def test_one_of_two_modules_may_stay():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = made(nn.GRU, 2, 2, batch_first=True), made(nn.GRU, 2, 2, batch_first=True)

        def forward(self, x):
            return (self.b(self.a(x)[0])[0] * self.b.weight_hh_l0[0, 0]).sum(1)

    problem = Problem(Two(), (randn(3, 4, 2), randn(3, 2)), "mse")
    assert list(problem.fused) == ["b"]
    assert [x.name for x in find_layers(problem).layers] == ["a.l0", "b"]


# --- the life of a problem


def estimates(problem: Problem) -> dict[str, torch.Tensor]:
    return estimate(problem, "lr", copies=4, block=2)


def test_copies_and_pickles_give_the_same():
    problem = problem_of(lstm())
    want = estimates(problem)
    buffer = io.BytesIO()
    module = Net(lstm())
    module.use = _outputs  # a lambda cannot be pickled
    whole = Problem(module, (problem.inputs, problem.target), "mse")
    torch.save(whole, buffer)
    buffer.seek(0)
    carried, _ = unpack(pack(whole, {}, []).data)  # what workers get
    for other in (copy.deepcopy(problem), torch.load(buffer, weights_only=False), carried):
        assert other.twin is not problem.twin
        assert {id(p) for p in other.twin.parameters()} == {id(p) for p in other.module.parameters()}
        found = estimates(other)
        assert all(torch.equal(found[n], want[n]) for n in want)


def _outputs(rnn, x):
    return rnn(x)[0]


def test_other_values_and_other_tensors_are_followed():
    problem = problem_of(lstm())
    values = {n: v + 0.1 * randn(*v.shape, seed=9) for n, v in problem.parameters.items()}
    moved = estimates(problem.at(values))
    other = problem_of(lstm())
    other.module.load_state_dict(values)
    found = estimates(other)
    for n in moved:
        torch.testing.assert_close(moved[n], found[n], rtol=1e-11, atol=1e-12)
    problem.module.rnn.weight_hh_l0 = nn.Parameter(values["rnn.weight_hh_l0"].clone())  # another tensor
    problem.refresh()
    assert isinstance(problem.twin.rnn, Unrolled)
    assert problem.twin.rnn.l0.weight_hh is problem.module.rnn.weight_hh_l0
    want = ((problem.module(problem.inputs) - problem.target) ** 2).mean(1).detach()
    torch.testing.assert_close(problem.clean_losses(), want, rtol=1e-12, atol=1e-12)


def test_float32_is_taken_apart_too():
    """100 steps: the outputs of torch's kernel and of the loop differ by rounding alone."""
    module = Net(lstm()).float()
    problem = Problem(module, (randn(8, 100, 2).float(), randn(8, 2).float()), "mse")
    assert problem.fused == {}


def test_half_precision_keeps_the_users_names():
    """The twin's parameters are copies of the user's there, in single precision."""
    problem = Problem(Net(lstm()).bfloat16(), (randn(3, 4, 2).bfloat16(), randn(3, 2).bfloat16()), "mse")
    (layer,) = rnn_layers(problem)
    assert layer.parameters == tuple(f"rnn.{n}" for n, _ in problem.module.rnn.named_parameters())
    assert problem.fused == {}
    assert {v.dtype for v in problem.parameters.values()} == {torch.float32}
    assert set(estimates(problem)) == set(problem.parameters)


@pytest.mark.parametrize(
    "draw", [Draw("activations", "layerwise", share="sample", sigma=0.3), Draw(injection="joint", sigma=0.3)]
)
@pytest.mark.parametrize(
    "module",
    [
        lambda: made(nn.GRU, 2, 1, 2, batch_first=True, bidirectional=True),
        lambda: made(nn.LSTM, 2, 2, batch_first=True, proj_size=1, bidirectional=True),
    ],
    ids=["gru", "projected-lstm"],
)
def test_every_layer_and_direction_equals_the_naive_loop(module, draw):
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = module()

        def forward(self, x):
            return self.rnn(x)[0].mean(1)

    problem = Problem(Last(), (randn(2, 2, 2), randn(2, 2)), "mse")
    assert check_draw(problem, draw, layers_of(problem)) > 0
