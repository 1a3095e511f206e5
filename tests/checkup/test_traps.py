"""The traps of the literature and of torch that can be provoked on a CPU, each shown first and then asked of doctor.

Where the package neutralises a trap, doctor says ok and a second way of computing shows that it is right to. Traps
of the package's own noise (chunks, memory formats, seeds for each parameter) cannot be provoked from outside: keyed
streams are tested in ``tests/truth/test_streams.py``.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradprobe as gp
from tests.checkup.models import Net, batch, net, of, seeded, status
from tests.problems_small import build


def casting(m: Net, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return m.last(torch.tanh(m.first(x)))


def test_the_cache_of_casts_hides_weights_that_are_changed_in_place_and_not_ours() -> None:
    model, (x, y) = net(), batch(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        model.first.weight.data.add_(1.0)
        assert torch.equal(model(x), before)  # the trap
        model.first.weight.data.sub_(1.0)
        found = gp.doctor(model, "es", batch=(x, y))
    assert status(found, "noise", "first") == "ok"
    assert status(found, "autocast") == "warning"


def test_autocast_inside_the_forward_is_refused_where_a_rule_cannot_follow() -> None:
    problem = gp.Problem(net(casting), batch(6, 4))
    found = gp.doctor(problem)
    assert "autocast" in of(found, "rule", "last").sentence
    assert status(found, "rule", "last") == "refused"
    assert "bfloat16" in of(found, "autocast").sentence
    assert ("precision", "first") in {(f.check, f.layer) for f in found.warnings}
    with pytest.raises(gp.UsageError, match="cannot be carried back"):
        gp.probe(problem, "lr", copies=20, seeds=2)
    assert not gp.doctor(problem, "es").refused
    gp.probe(problem, "es", copies=20, seeds=2)


def test_out_proj_is_never_called_and_its_parameters_are_the_attentions() -> None:
    problem = build("attention")
    fired = []
    handle = problem.module.attend.out_proj.register_forward_hook(lambda *_: fired.append(1))
    problem.module(problem.inputs)
    handle.remove()
    assert fired == []  # the trap
    found = gp.doctor(problem)
    assert found.ok
    assert of(found, "calls", "attend").value["calls"] == 1
    assert (
        of(found, "rule", "attend").value["rule"] == "attention"
    )  # gives out_proj.weight what backprop gives


def test_a_fused_lstm_hides_its_steps_and_its_twin_does_not() -> None:
    problem = build("lstm-outputs")
    seen = []
    handle = problem.module.rnn.register_forward_hook(lambda *_: seen.append(1))
    problem.module(problem.inputs)
    handle.remove()
    assert seen == [1]  # the trap: three steps, one call, and vmap refuses it
    with pytest.raises(RuntimeError, match="[Bb]atching rule"):
        torch.func.vmap(lambda x: problem.module.rnn(x)[0])(torch.randn(2, *problem.inputs.shape).double())
    found = gp.doctor(problem)
    assert found.ok
    assert of(found, "calls", "rnn.l0").value["calls"] == 3
    assert of(found, "engines").value["units"]["activations of rnn.l0"]["copies_per_second"]["vmap"] > 0
    assert "one fused operation" in of(gp.doctor(build("fused-rnn")), "calls", "rnn").sentence


def test_a_relu_in_place_overwrites_what_a_hook_saw_and_not_what_is_pulled_back() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)))
    seen = []
    handle = model[0].register_forward_hook(lambda m, a, out: seen.append(out))
    x, y = batch(6, 4)
    model(x)
    handle.remove()
    assert (seen[0] >= 0).all()  # the trap: the pre-activation is gone
    found = gp.doctor(model, batch=(x, y))
    assert found.ok
    assert of(found, "overwritten").value["layers"] == ["0"]
    apart = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    mine, theirs = (gp.estimate(gp.Problem(m, (x, y)), "lr", copies=40) for m in (model, apart))
    assert all(torch.allclose(mine[n], theirs[n], atol=1e-6) for n in mine)


def test_a_compiled_model_is_run_as_the_plain_one() -> None:
    plain = net()
    compiled = torch.compile(plain, backend="eager")
    assert gp.doctor(compiled, batch=batch(6, 4), quick=True).ok
    mine, theirs = (gp.estimate(gp.Problem(m, batch(6, 4)), "lr", copies=20) for m in (compiled, plain))
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_a_compiled_part_is_deaf_to_hooks() -> None:
    inner = torch.compile(net(), backend="eager")
    model = nn.Sequential(inner, nn.Linear(3, 3))
    model(batch(6, 4)[0])
    fired = []
    handle = inner._orig_mod.first.register_forward_hook(lambda *_: fired.append(1))
    model(batch(6, 4)[0])
    handle.remove()
    found = gp.doctor(model, batch=batch(6, 4), quick=True)
    assert {f.layer for f in found.warnings} == {"0._orig_mod.first", "0._orig_mod.last"}
    assert "torch.compile" in of(found, "calls", "0._orig_mod.first").sentence


def test_forwards_in_training_mode_change_buffers_and_ours_do_not() -> None:
    problem = build("train-batch-norm")
    model = problem.module
    before = model[1].running_mean.clone()
    found = gp.doctor(problem)
    assert torch.equal(model[1].running_mean, before)
    assert status(found, "state") == "ok"
    assert "1.running_mean" in of(found, "state").value["copied"]
    model(problem.inputs)
    assert not torch.equal(model[1].running_mean, before)  # the trap


def test_copies_folded_into_the_batch_meet_in_batch_norm_and_tile_is_not_taken() -> None:
    problem = build("train-batch-norm")
    with torch.no_grad():
        alone = problem.module(problem.inputs)
        noisy = torch.cat([problem.inputs, problem.inputs + 1])
        assert not torch.allclose(problem.module(noisy)[: len(alone)], alone)  # the trap
    found = gp.doctor(problem)
    assert status(found, "samples") == "warning"
    units = of(found, "engines").value["units"].values()
    assert all(u["copies_per_second"]["tile"] is None for u in units)


@pytest.mark.parametrize(("sigma", "verdict"), [(1e-3, "warning"), (1e-4, "refused")])
def test_small_noise_on_weights_in_bfloat16(sigma: float, verdict: str) -> None:
    """Weights of 0.1 lie 2**-11 apart: noise of less than half of that is lost, P(|eps| < 2**-12 / sigma) of it.

    That is 19 % and 98 %; five standard errors of a share of 8,320 numbers are 0.022.
    """
    model = seeded(lambda: nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 3)))
    for p in model[0].parameters():
        nn.init.constant_(p, 0.1)
    x, y = batch(8, 64)
    problem = gp.Problem(model.bfloat16(), (x.bfloat16(), y), precision="as-is")
    found = of(gp.doctor(problem, "es", sigma=sigma), "precision", "0")
    assert found.status == verdict
    assert found.value["type"] == "bfloat16"
    assert found.value["lost"] == pytest.approx(math.erf(2**-12 / sigma / 2**0.5), abs=0.022)
    if verdict == "refused":
        with pytest.raises(gp.UsageError, match="rounded away in bfloat16"):
            gp.probe(problem, "es", sigma=sigma, copies=20, seeds=2)


def test_half_precision_is_run_in_single_unless_asked_otherwise() -> None:
    x, y = batch(6, 4)
    assert gp.doctor(net().bfloat16(), batch=(x.bfloat16(), y)).ok
