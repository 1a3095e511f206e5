"""Right code passes, with what it costs told correctly, and nothing of the user's is touched."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe.core.errors import UsageError
from tests.audits import right
from tests.audits.right import PAIRS
from tests.problems_small import build
from tests.problems_tiny import classifier

PASSES = {
    "antithetic": 2 * PAIRS,
    "forward_difference": PAIRS + 1,
    "spsa": 2 * PAIRS,
    "by_vmap": 2 * PAIRS,
    "likelihood_ratio": PAIRS + 1,
    "wrapped": 2 * PAIRS,
}
"""Counted by hand; 1 for backprop."""


@pytest.mark.parametrize("function", right.RIGHT, ids=lambda f: f.__name__)
def test_right_code_passes_and_its_forwards_are_counted(function) -> None:
    found = gp.audit(function, classifier())
    assert found.ok, str(found)
    assert not found.warnings, str(found)
    assert found.evidence["passes"] == PASSES.get(function.__name__, 1)
    low, high = found.evidence["parts"]["the whole model"]["gain"][1:]
    assert low <= 1 + 1e-6
    assert high >= 1 - 1e-6


def test_plain_antithetic_es_has_the_noise_of_plain_antithetic_es() -> None:
    low, high = gp.audit(right.antithetic, classifier()).evidence["noise_ratio"][1:]
    assert low < 1.1
    assert high > 0.9
    assert high / low < 2


def test_es_on_all_weights_has_the_noise_of_es_where_only_some_layers_are_judged() -> None:
    """Its noise in a layer is that of the whole gradient: P |g|^2/|g of the layer|^2 + 1, not P + 1."""
    problem = classifier()
    for layer in ("first", "last"):
        low, high = gp.audit(right.antithetic, problem, layers=[layer]).evidence["noise_ratio"][1:]
        assert low < 1.1
        assert high > 0.9


def test_a_direction_of_which_little_is_shown_is_not_ok() -> None:
    """3 x 3 calls with 40 times the noise: the length along the gradient is told, the direction is not."""
    problem = classifier()
    gradient = gp.estimate(problem, "bp")
    long = sum(float(g.square().sum()) for g in gradient.values()) ** 0.5

    def beside(module, batch):
        """The gradient, and noise in all directions but its own."""
        noise = {n: torch.randn_like(g) for n, g in gradient.items()}
        along = sum(float((noise[n] * g).sum()) for n, g in gradient.items()) / long**2
        return {n: g + 40 * long * (noise[n] - along * g) for n, g in gradient.items()}

    few = {"repeats": 3, "seeds": 3}
    found = gp.audit(beside, problem, **few)
    assert not found.problems, str(found)
    assert any("its direction is little shown" in one for one in found.unshown), str(found)
    assert not found.ok
    assert gp.audit(beside, problem, target="surrogate", **few).ok


@pytest.mark.parametrize(
    "name", ["cnn", "batch-norm", "lstm", "tied", "frozen-parameter", "weighted", "stateful"]
)
def test_backprop_passes_on_other_models(name: str) -> None:
    problem = build(name)

    def backprop(module, batch):
        inputs, target = batch
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        losses = problem._loss(module(*args), target)
        problem.total(losses).backward()

    found = gp.audit(backprop, problem)
    assert found.ok, str(found)
    assert found.evidence["calls"] == 1


def test_a_smoothed_gradient_is_no_fault_where_sigma_is_told() -> None:
    """Noise of 1 on weights near 1: the smoothed loss is another one."""
    problem = classifier()

    def wide(module, batch):
        return right.by_vmap(module, batch, sigma=1.0, pairs=32)

    without, told = gp.audit(wide, problem), gp.audit(wide, problem, sigma=1.0)
    assert any("tell" in one and "sigma" in one for one in (*without.problems, *without.warnings)), str(
        without
    )
    assert told.ok, str(told)


def test_fused_attention_that_could_drop_out_and_does_not_is_no_random_number() -> None:
    def summed(module, batch):
        (module(batch[0]) - batch[1]).square().mean(1).sum().backward()

    found = gp.audit(summed, build("attention"))
    assert len(found.problems) == 1
    assert "its length along the gradient is 2 times" in found.problems[0]


def test_nothing_of_the_users_is_touched() -> None:
    problem = classifier()
    before = copy.deepcopy(problem.module.state_dict())
    random_states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 - what must stay

    def rude(module, batch):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002 - as users do
        random.seed(3)
        module.train()
        batch[0].zero_()
        for p in module.parameters():
            p.data.zero_()
            p.requires_grad_(False)
        raise ValueError("on\npurpose")

    with pytest.raises(UsageError, match=r"fails when it is called .*: ValueError: on purpose\.$"):
        gp.audit(rude, problem)
    assert all(torch.equal(v, before[k]) for k, v in problem.module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in problem.module.parameters())
    assert bool(problem.inputs.any())
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert np.array_equal(np.random.get_state()[1], random_states[1])  # noqa: NPY002 - likewise
    assert random.getstate() == random_states[2]


def test_results_read_well_everywhere() -> None:
    found = gp.audit(right.antithetic, classifier(), repeats=2, seeds=3, name="mine <1>")
    assert str(found).startswith("mine <1> on Sequential: ")
    page = found._repr_html_()
    assert "mine &lt;1&gt;" in page
    assert "<script" not in page
    assert "first" in page
    data = found.to_dict()
    assert data["ok"] == found.ok
    assert set(data["evidence"]["parts"]) == {"the whole model", "first", "last"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"function": 3}, "needs a function"),
        ({"where": "biases"}, "unknown where"),
        ({"target": "grad"}, "Did you mean 'gradient'"),
        ({"repeats": 1}, "from 2 on"),
        ({"seeds": 2}, "from 3 on"),
        ({"sigma": 0}, "positive number"),
        ({"sgima": 0.1}, "Did you mean 'sigma'"),
        ({"loss": "mse"}, "belongs to a module"),
        ({"layers": "frist"}, "Did you mean 'first'"),
    ],
)
def test_bad_input_is_one_sentence(given: dict, message: str) -> None:
    function = given.pop("function", right.backward)
    with pytest.raises(UsageError, match=message) as caught:
        gp.audit(function, classifier(), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, "text", torch.zeros(3), [torch.zeros(3)], {"first.weight": "text"}])
def test_what_is_no_direction_is_refused_in_one_sentence(value) -> None:
    with pytest.raises(UsageError, match="the function returned") as caught:
        gp.audit(lambda module, batch: value, classifier())
    assert "\n" not in str(caught.value)


def test_noise_that_smooths_the_loss_of_a_real_network_is_told_from_a_wrong_length() -> None:
    """Trained weights: noise of 0.01 on all of them at once more than doubles the gradient (measured here)."""
    problem = gp.load_problem(checkpoint="trained", batch_size=16)
    seeds = {"repeats": 4, "seeds": 5}

    def few(module, batch):
        return right.by_vmap(module, batch, pairs=16)

    without, told = gp.audit(few, problem, **seeds), gp.audit(few, problem, sigma=right.SIGMA, **seeds)
    assert without.evidence["parts"]["the whole model"]["gain"][1] > 1.1
    assert any("tell sigma=" in one for one in without.problems), str(without)
    assert not told.problems, str(told)
    low, high = told.evidence["smoothed"]["the whole model"]["gain"][1:]
    assert low < 1 < high


def test_the_audit_of_code_written_by_hand_agrees_with_the_probe_of_the_same_method() -> None:
    """Likelihood ratio on all layers at once: price and gain of a call of n copies are those of n copies."""
    problem = classifier()
    of_audit = gp.audit(right.likelihood_ratio, problem).evidence["parts"]["the whole model"]
    ds = gp.probe(problem, ["lr(injection=joint)"], sigma=right.SIGMA, copies=400, block=PAIRS, seeds=5)
    law = gp.stats.alignment(ds, over="model").isel(estimator=0)
    for name in ("price", "half_copies"):
        value, low, high = (PAIRS * x for x in of_audit[name])
        assert low < float(law[f"{name}_high"])
        assert high > float(law[f"{name}_low"])
        assert value == pytest.approx(float(law[name]), rel=0.35)
    assert of_audit["gain"][1] < float(law["gain"]) < of_audit["gain"][2]
