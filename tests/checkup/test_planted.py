"""Planted faults: doctor names each, and says nothing of what is beside it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradprobe as gp
from tests.checkup.models import Net, batch, net, of, samples_losses, seeded, status


def planted(function) -> gp.Problem:
    return gp.Problem(net(function), batch(6, 4))


def warned(found) -> set[tuple[str, str | None]]:
    return {(f.check, f.layer) for f in found.warnings}


# --- what bypasses noise


def test_a_module_whose_forward_is_called_directly() -> None:
    found = gp.doctor(planted(lambda m, x: m.last(torch.tanh(m.first.forward(x)))))
    assert warned(found) == {("calls", "first")}
    assert "called directly (module.forward(x))" in of(found, "calls", "first").sentence
    assert of(found, "noise", "first").status == "ok"  # noise on its weights arrives


def test_weights_that_are_used_by_a_function() -> None:
    found = gp.doctor(planted(lambda m, x: m.last(F.linear(x, m.first.weight, m.first.bias))))
    assert warned(found) == {("calls", "first")}
    assert "F.linear" in of(found, "calls", "first").sentence


def test_nothing_is_warned_of_where_only_weight_noise_is_asked_for() -> None:
    problem = planted(lambda m, x: m.last(m.first.forward(x)))
    assert gp.doctor(problem, "es").ok
    assert not gp.doctor(problem, "lr").ok


def test_a_hook_whose_layer_also_acts_past_it() -> None:
    def forward(m, x):
        m.first(x)
        return m.last(torch.tanh(F.linear(x, m.first.weight, m.first.bias)))

    found = gp.doctor(planted(forward))
    assert warned(found) == {("calls", "first")}
    assert "also act past" in of(found, "calls", "first").sentence


@pytest.mark.parametrize("quick", [False, True])
def test_weights_that_are_cached_while_gradients_pass(quick: bool) -> None:
    """Values come from a cache and gradients from the weights, as in AMP's cache of casts."""
    cache = net().first.weight.detach().clone()

    def forward(m, x):
        w = m.first.weight
        return m.last(torch.tanh(F.linear(x, cache + (w - w.detach()))))

    found = gp.doctor(planted(forward), "es", quick=quick)
    assert {(f.check, f.layer) for f in found.refused} == {("noise", "first")}
    assert "does not move the loss although backprop says" in of(found, "noise", "first").sentence


@pytest.mark.parametrize("bias", [-3.0, 3.0])
def test_a_threshold_on_either_side_is_reached(bias: float) -> None:
    """One number, far from its threshold on one side: noise of one sign never moves the loss."""
    module = nn.Linear(1, 1)
    nn.init.constant_(module.bias, bias)
    nn.init.zeros_(module.weight)
    steps = nn.Sequential(module, Steps())
    found = gp.doctor(steps, batch=(torch.ones(1, 1), torch.zeros(1, 1)), loss=lambda output, _: output[:, 0])
    assert not found.refused
    assert "exactly 0" in of(found, "backprop", "0").sentence


class Steps(nn.Module):
    def forward(self, v):
        return (v > 0).to(v.dtype)


def test_a_gate_that_is_zero() -> None:
    found = gp.doctor(planted(lambda m, x: m.last(0 * torch.tanh(m.first(x)))))
    assert ("noise", "first") in warned(found)
    assert "dead" in of(found, "noise", "first").sentence
    assert of(found, "noise", "last").status == "ok"


def test_a_layer_that_never_runs() -> None:
    found = gp.doctor(planted(lambda m, x: m.first(x)[:, :3]))
    assert warned(found) == {("unused", None)}
    assert "'last' never runs" in of(found, "unused").sentence


# --- what backprop does not see


@pytest.mark.parametrize("quick", [False, True])
def test_a_frozen_branch_behind_a_detach(quick: bool) -> None:
    found = gp.doctor(planted(lambda m, x: m.last(torch.tanh(m.first(x)).detach())), quick=quick)
    assert warned(found) == {("backprop", "first")}
    finding = of(found, "backprop", "first")
    assert "detach" in finding.sentence
    assert finding.value["backprop"] == 0
    assert finding.value["difference"] != 0


class Spike(torch.autograd.Function):
    """A threshold whose backward is a smooth curve."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        (v,) = ctx.saved_tensors
        return g / (1 + 10 * v.abs()) ** 2


class Doubled(torch.autograd.Function):
    """The identity, with a backward that is twice too long."""

    @staticmethod
    def forward(ctx, v):
        return v.clone()

    @staticmethod
    def backward(ctx, g):
        return 2 * g


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("function", [Spike, Doubled])
def test_a_backward_of_its_own(function, quick: bool) -> None:
    found = gp.doctor(planted(lambda m, x: m.last(function.apply(m.first(x)))), sigma=0.5, quick=quick)
    assert warned(found) == {("backprop", "first")}
    assert (
        "backprop is not the derivative of this loss in layer 'first'"
        in of(found, "backprop", "first").sentence
    )


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("function", [torch.sign, torch.round, lambda v: (v > 0).to(v.dtype)])
def test_a_layer_behind_a_step_function(function, quick: bool) -> None:
    found = gp.doctor(planted(lambda m, x: m.last(function(4 * m.first(x)))), "lr(sigma=0.5)", quick=quick)
    assert warned(found) == {("backprop", "first")}
    sentence = of(found, "backprop", "first").sentence
    assert "exactly 0 for layer 'first' although noise there moves the loss" in sentence


def test_the_difference_that_is_reported_is_the_slope() -> None:
    """The doubled backward's slope is twice the central difference."""
    value = of(gp.doctor(planted(lambda m, x: m.last(Doubled.apply(m.first(x))))), "backprop", "first").value
    assert value["backprop"] == pytest.approx(2 * value["difference"], rel=1e-5)


def test_kinks_are_no_fault() -> None:
    """ReLU with many units: differences across kinks vanish as the step does."""
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 3)))
    for dtype in (torch.float32, torch.float64):
        x, y = batch(6, 4)
        assert gp.doctor(gp.Problem(model.to(dtype), (x.to(dtype), y))).ok


def test_a_bend_exactly_here_is_no_fault() -> None:
    """Biases of 0 and inputs of 0: every unit sits on ReLU's kink, where backprop takes one side."""
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    nn.init.zeros_(model[0].bias)
    x, y = batch(6, 4)
    found = gp.doctor(gp.Problem(model.double(), (torch.zeros_like(x).double(), y)))
    assert of(found, "backprop", "0").value["verdict"] == "corner"
    assert status(found, "backprop", "0") == "ok"


# --- what couples, repeats or draws


def test_dropout_left_on() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3)).train()
    found = gp.doctor(model, batch=batch(6, 4), mode="as-is")
    assert [f.status for f in found.findings] == ["refused"]
    assert found.findings[0].sentence.startswith(
        "with '1' left on, two forwards of the same batch give different"
    )
    assert gp.doctor(model, batch=batch(6, 4)).ok


def test_batch_norm_in_training_mode() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))).train()
    found = gp.doctor(model, batch=batch(6, 4), mode="as-is")
    assert warned(found) == {("samples", None)}
    assert "BatchNorm with batch statistics: '1'" in of(found, "samples").sentence
    assert of(found, "mode").value["batch_statistics"] == ["1"]
    scalar = gp.doctor(model, batch=batch(6, 4), mode="as-is", loss=F.cross_entropy)
    assert warned(scalar) == {("samples", None)}
    assert gp.doctor(model, batch=batch(6, 4)).ok


def test_a_batch_statistic_of_ones_own() -> None:
    found = gp.doctor(planted(lambda m, x: m.last(torch.tanh(m.first(x - x.mean(0))))))
    assert warned(found) == {("samples", None)}
    assert "mixes rows" in of(found, "samples").sentence


def test_attention_over_the_batch() -> None:
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.head = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.attend(x, x, x)[0].mean(1))

    found = gp.doctor(seeded(Attend), batch=batch(6, 5, 4))
    assert warned(found) == {("samples", None)}
    assert "batch_first=False: 'attend'" in of(found, "samples").sentence


@pytest.mark.parametrize("steps", [5, 6])
def test_time_major_batches(steps: int) -> None:
    """Samples along axis 1 are found there, even where there are as many time steps as samples."""
    x, y = torch.randn(steps, 6, 4, generator=torch.Generator().manual_seed(1)), batch(6, 4)[1]
    model = net(lambda m, x: m.last(torch.tanh(m.first(x)).mean(0)))
    found = gp.doctor(model, batch=(x, y), loss=samples_losses)
    assert found.ok
    assert of(found, "samples").value["axis"] == 1
    if steps == 6:
        wrong = gp.doctor(model, batch=(x, y), loss=samples_losses, batch_axis=0)
        assert warned(wrong) == {("samples", None)}
        assert "another batch_axis" in of(wrong, "samples").sentence


def test_losses_whose_samples_show_in_no_input() -> None:
    """Three losses of a batch with six rows: nothing of the inputs belongs to one of them."""
    found = gp.doctor(net(), batch=batch(6, 4), loss=lambda out, y: samples_losses(out, y).view(3, 2).mean(1))
    assert warned(found) == {("samples", None)}
    assert "no input has 3 rows" in of(found, "samples").sentence


@pytest.mark.parametrize("quick", [False, True])
def test_a_model_that_seeds_itself(quick: bool) -> None:
    def forward(m, x):
        torch.manual_seed(3)
        return m.last(torch.tanh(m.first(x)) + 0.1 * torch.randn(len(x), 8))

    found = gp.doctor(planted(forward), quick=quick)
    assert warned(found) == {("random", None)}
    assert "(randn)" in of(found, "random").sentence


def test_a_generator_of_the_models_own_is_found_by_a_full_look() -> None:
    def forward(m, x):
        generator = torch.Generator().manual_seed(3)
        return m.last(torch.tanh(m.first(x)) + 0.1 * torch.randn(len(x), 8, generator=generator))

    assert warned(gp.doctor(planted(forward))) == {("random", None)}


def test_forwards_that_agree_to_rounding_alone() -> None:
    """A loss whose last bit flips from call to call: 2 ulp of the largest."""
    calls = []

    def loss(out, y):
        calls.append(1)
        return samples_losses(out, y) * (1 + 2 * torch.finfo(out.dtype).eps * (len(calls) % 2))

    found = gp.doctor(net(), batch=batch(6, 4), loss=loss)
    assert status(found, "repeat") == "warning"
    assert 1 <= of(found, "repeat").value["ulp"] <= 3


def test_a_noisy_forward_that_writes_on_the_users_model() -> None:
    """The trace is left by large activations alone, which no forward without noise has."""
    model = net()
    own, most = model.last.weight, float(model.first(batch(6, 4)[0]).detach().abs().max())
    model.function = lambda m, x: m.last(_watched(m.first(x), own, 1.1 * most))
    found = gp.doctor(model, batch=batch(6, 4))
    assert "weight 'last.weight'" in of(found, "state").sentence
    assert status(found, "state") == "refused"


def _watched(h: torch.Tensor, weight: torch.Tensor, most: float) -> torch.Tensor:
    if h.detach().abs().max() > most:
        weight.data.add_(1e-3)
    return torch.tanh(h)


def test_a_layer_that_its_parent_changes_between_calls() -> None:
    """Alone, the layer computes something else than inside the model: its local rule would mislead."""

    class Gained(nn.Linear):
        gain = 1.0

        def forward(self, x):
            return self.gain * super().forward(x)

    def forward(m, x):
        m.first.gain = 2.0
        h = m.first(x)
        m.first.gain = 1.0
        return m.last(torch.tanh(h))

    model = net(forward)
    model.first = seeded(lambda: Gained(4, 8))
    for quick in (False, True):
        found = gp.doctor(model, batch=batch(6, 4), quick=quick)
        assert {(f.check, f.layer) for f in found.refused} == {("rule", "first")}
        assert "misses backprop's gradient by 50%" in of(found, "rule", "first").sentence


# --- precision


def test_a_sigma_below_the_spacing_of_float32() -> None:
    found = gp.doctor(net(), batch=batch(6, 4), sigma=1e-9)
    assert {("precision", "first"), ("precision", "last")} <= {(f.check, f.layer) for f in found.refused}
    assert "rounded away in float32" in of(found, "precision", "first").sentence


def test_a_sigma_whose_effect_is_rounding() -> None:
    """At 1e-7 a loss near 1 moves by an ulp: in float64 the same sigma is fine."""
    found = gp.doctor(net(), batch=batch(6, 4), sigma=1e-7)
    assert warned(found) == {("precision", "first"), ("precision", "last")}
    x, y = batch(6, 4)
    assert gp.doctor(net().double(), batch=(x.double(), y), sigma=1e-7).ok


def test_noise_that_makes_losses_infinite() -> None:
    found = gp.doctor(planted(lambda m, x: m.last(torch.exp(torch.exp(m.first(x))))), sigma=3.0)
    assert "not finite" in of(found, "precision", "first").sentence


def test_a_check_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradprobe.checkup import CHECKS

    def broken(case):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(CHECKS.entry("mode"), "item", broken)
    found = gp.doctor(net(), batch=batch(6, 4))
    assert warned(found) == {("mode", None)}
    assert "RuntimeError: no luck" in of(found, "mode").sentence


# --- what doctor is asked


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"estimators": "lrr"}, "Did you mean 'lr'"),
        ({"layers": "frist"}, "Did you mean 'first'"),
        ({"sigm": 0.1}, "Did you mean 'sigma'"),
        ({"estimators": "lr", "sigm": 0.1}, "Did you mean 'sigma'"),
        ({"sigma": -1.0}, "positive number"),
        ({"sigma": {"frist": 0.1}}, "Did you mean 'first'"),
        ({"batch": (1, 2)}, "has it already"),
    ],
)
def test_mistakes_get_one_sentence(options: dict, says: str) -> None:
    with pytest.raises(gp.UsageError, match=says):
        gp.doctor(gp.Problem(Net(), batch(6, 4)), **options)


def test_a_module_needs_a_batch() -> None:
    with pytest.raises(gp.UsageError, match="needs batch="):
        gp.doctor(net())
