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


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[1][0][-1])


def test_second_output_of_a_fused_layer_leaves_weight_noise_only() -> None:
    lstm, out = find(LastState(), randn(6, 7, 4)).layers
    assert not lstm.activations
    assert out.activations


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
