from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradprobe import Problem, UsageError
from gradprobe.layers import register, rule_for
from gradprobe.layers.find import Found, find_layers
from gradprobe.layers.generic import Generic


def find(module: nn.Module, x: torch.Tensor, classes: int = 3, **options: object) -> Found:
    y = torch.arange(len(x)) % classes
    return find_layers(Problem(module, (x, y), **options))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Runs ``b`` before ``a``, never ``never``; uses ``hidden.weight`` without calling ``hidden``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 4)
        self.never, self.hidden = nn.Linear(2, 2), nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(torch.tanh(F.linear(self.b(x), self.hidden.weight)))


def test_execution_order_unused_and_uncalled_layers() -> None:
    found = find(Odd(), randn(6, 4))
    assert [x.name for x in found.layers if x.calls] == ["b", "a"]
    assert found.unused == ("never",)
    hidden = next(x for x in found.layers if x.name == "hidden")
    assert not hidden.activations
    assert "weight noise only" in hidden.note
    with pytest.raises(UsageError, match="never runs"):
        found.select("never")


class Bypass(nn.Module):
    """The weight acts through the call and, a second time, past it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.fc(x)) + F.linear(x, self.fc.weight))


def test_influence_past_the_output_leaves_weight_noise_only() -> None:
    fc, out = find(Bypass(), randn(6, 4)).layers
    assert (fc.activations, out.activations) == (False, True)
    assert "past its" in fc.note


class TwoOutputs(nn.Module):
    """Gives two tensors, of which the second is used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(randn(4, 5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ self.weight, torch.tanh(x @ self.weight)


class SecondOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.two, self.out = TwoOutputs(), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.two(x)[1])


def test_a_second_output_leaves_weight_noise_only() -> None:
    two, out = find(SecondOutput(), randn(6, 4)).layers
    assert not two.activations
    assert out.activations


class LastState(nn.Module):
    def __init__(self, read: bool) -> None:
        super().__init__()
        self.lstm, self.out, self.read = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3), read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.lstm(x)[1][0][-1]
        return self.out(last * self.lstm.bias_hh_l0.mean() if self.read else last)


def test_steps_of_a_recurrent_module_are_calls() -> None:
    gates, _ = find(LastState(read=False), randn(6, 7, 4)).layers
    assert (gates.name, gates.kind, gates.calls, gates.credit) == ("lstm.l0", "LSTMGates", 7, "sample")
    assert gates.parameters[0] == "lstm.weight_ih_l0"
    for pattern in ("LSTM*", "lstm", "lstm.l0"):
        assert find(LastState(read=False), randn(6, 7, 4)).select(pattern) == [gates]


def test_a_fused_recurrent_module_says_why_its_steps_are_hidden() -> None:
    lstm, _ = find(LastState(read=True), randn(6, 7, 4)).layers
    assert (lstm.name, lstm.activations) == ("lstm", False)
    assert lstm.note.startswith("its steps are hidden in one fused operation (")
    assert "bias_hh_l0" in lstm.note
    assert lstm.note.endswith("): weight noise only")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.mid, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mid(self.emb(tokens)))).mean(1)


def test_modules_that_share_a_parameter_are_one_layer() -> None:
    tokens = torch.randint(0, 7, (6, 5), generator=torch.Generator().manual_seed(0))
    layers = find(Tied(), tokens).layers
    assert [x.name for x in layers] == ["emb = head", "mid"]
    assert layers[0].parameters == ("emb.weight",)
    assert layers[0].calls == 2


def test_attention_is_one_layer_with_its_projection() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.att, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.att(x, x, x)[0].mean(1))

    att, _ = find(Net(), randn(6, 5, 4)).layers
    assert set(att.parameters) == {
        f"att.{n}" for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    }
    assert att.activations
    assert att.credit == "sample"


def test_samples_are_found_along_any_axis_and_nowhere_in_merged_ones() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.flat, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x.transpose(0, 1)))
            h = self.flat(h.reshape(-1, 4)).view_as(h)
            return self.out(h.mean(0))

    credits = {x.name: (x.credit, x.axis) for x in find(TimeFirst(), randn(6, 6, 4)).layers}
    assert credits == {"a": ("sample", 1), "flat": ("copy", 0), "out": ("sample", 0)}


@pytest.mark.parametrize("mixing", range(7))
def test_layers_below_a_sum_over_samples_are_credited_with_the_copys_loss(mixing: int) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, layer in enumerate(self.layers):
                x = torch.tanh(layer(x))
                if i + 1 == mixing:
                    x = x + x.sum(0)
            return x

    module, inputs = Mixing(), randn(6, 4)
    problem = Problem(
        module, (inputs, torch.arange(6) % 4), lambda out, y: F.cross_entropy(out, y, reduction="none")
    )
    if mixing:  # else it is the copy's loss, for the inputs are mixed too
        problem.loss_per = "sample"
    credits = [x.credit for x in find_layers(problem).layers]
    assert credits == ["copy"] * mixing + ["sample"] * (6 - mixing)


def test_a_layer_more_costs_a_forward_more() -> None:
    """Ten layers and twenty: one forward for each, and the same few for whose samples they are."""

    def forwards(count: int) -> int:
        problem = Problem(
            nn.Sequential(*[nn.Linear(4, 4) for _ in range(count)]), (randn(8, 4), torch.arange(8) % 4)
        )
        before = problem.forwards
        assert {x.credit for x in find_layers(problem).layers} == {"sample"}
        return problem.forwards - before

    assert forwards(20) - forwards(10) == 10


def test_parametrised_weights_belong_to_their_module_and_have_no_signs() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    (layer,) = find(module, randn(6, 4)).layers
    assert layer.name == "0"
    assert any("original0" in p for p in layer.parameters)
    assert not rule_for(module[0]).encodes


def test_a_parameter_of_the_model_itself() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(randn(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    assert [x.name for x in find(Bare(), randn(6, 4)).layers] == ["(root)"]


def test_selection_by_name_glob_and_type() -> None:
    module = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 3))
    found = find(module, randn(6, 1, 4))
    assert [x.name for x in found.select("Linear")] == ["2", "3"]
    assert [x.name for x in found.select(["3", "0"])] == ["0", "3"]
    assert [x.name for x in found.select("[02]")] == ["0", "2"]
    with pytest.raises(UsageError, match="Did you mean 'Linear'"):
        found.select("Linaer")


def test_rules_follow_the_forward_not_the_name() -> None:
    class Same(nn.Linear):
        pass

    class Other(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) ** 2

    assert rule_for(Same(2, 2)).encodes
    assert not rule_for(Other(2, 2)).encodes
    with pytest.raises(UsageError, match="sign of the input is not defined"):
        Generic().encoded(Other(2, 2), (), {})


def test_a_user_may_register_a_rule() -> None:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    @register("mine", summary="x", classes=(f"{Mine.__module__}.{Mine.__qualname__}",))
    class MineRule(Generic):
        encodes = True

    assert isinstance(rule_for(Mine()), MineRule)
