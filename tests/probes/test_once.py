from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

import gradprobe as gp
from gradprobe.engine.features_first import features_first
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import Estimator
from gradprobe.probes import estimate as estimate_module


def problem_of(net: nn.Module, *shape: int) -> gp.Problem:
    x = torch.randn(8, *shape).to(next(net.parameters()).dtype)
    return gp.Problem(net, (x, torch.arange(8) % 3))


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


NETS = {
    "rows": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)), (5,)),
    "three axes": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Flatten(), nn.Linear(24, 3)), (4, 5)),
    "forward of its own": (lambda: nn.Sequential(Doubled(5, 6), nn.Tanh(), nn.Linear(6, 3)), (5,)),
}


@pytest.mark.parametrize("case", NETS)
def test_features_first_gives_what_the_model_gives_and_leaves_it_as_it_was(case: str) -> None:
    torch.manual_seed(0)
    make, shape = NETS[case]
    problem = problem_of(make().double(), *shape)
    twin, x = problem.twin, problem.inputs
    weights = {name: torch.randn(7, *p.shape, dtype=torch.float64) for name, p in twin.named_parameters()}
    with torch.no_grad():
        with features_first(problem):
            found = torch.func.vmap(lambda w: functional_call(twin, w, (x,)))(weights)
            assert torch.equal(twin(x), problem.module(x))  # weights that are no copy's: torch's own way
        each = [functional_call(twin, {n: w[k] for n, w in weights.items()}, (x,)) for k in range(7)]
    assert torch.allclose(found, torch.stack(each), rtol=1e-12, atol=1e-12)
    assert not any("forward" in vars(module) for module in twin.modules())


def test_whose_the_losses_are_is_asked_where_samples_are_credited(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    problem, asked = problem_of(nn.Linear(5, 3), 5), []
    for name in ("es", "eggroll", "sign(es)", "es-sample", "lr", "sign(lr)", "bp"):
        found = estimate_module._of_samples(estimate_module._made(name, {}), problem)
        assert found == (name not in ("es", "eggroll", "sign(es)"))
    monkeypatch.setattr("gradprobe.problems.problem.still_independent", lambda *_: asked.append(1) or True)
    for name, often in (("es", 0), ("lr", 5)):
        problem._looks = 8
        for _ in range(5):
            gp.estimate(problem, name, copies=10)
        assert len(asked) == often


def test_an_estimator_is_made_anew_where_its_name_or_its_options_mean_something_else() -> None:
    made = estimate_module._made
    assert made("es", {"sigma": 1}) is made("es", {"sigma": 1})
    assert made("es", {"sigma": {"*": 0.5}}).label == "es(sigma={'*': 0.5})"
    with pytest.raises(gp.UsageError):
        made("es", {"sigma": True})
    with pytest.raises(gp.UsageError):
        made("es", {"sigmas": 1.0})
    old = ESTIMATORS.get("es")
    try:
        ESTIMATORS.entry("es").item = type("Other", (old,), {})
        assert type(made("es", {"sigma": 1}).estimator) is not old
        assert isinstance(made("es", {"sigma": 1}).estimator, Estimator)
    finally:
        ESTIMATORS.entry("es").item = old
