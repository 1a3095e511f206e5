"""Every fault that is planted is found, and named."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradprobe as gp
from tests.audits.right import (
    PAIRS,
    SIGMA,
    antithetic,
    autograd,
    backward,
    forward_difference,
    loss_at,
    values,
)
from tests.problems_tiny import classifier

TOLD = {"sigma": SIGMA, "samples": PAIRS}


def times(factor: float):
    return lambda module, batch: {n: factor * d for n, d in antithetic(module, batch).items()}


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (SIGMA, "sigma = 0.01"),
        (SIGMA**2, "sigma^2 = 0.0001"),
        (1 / SIGMA, "1/sigma = 100"),
        (8.0, "B = 8"),
        (1 / 8, "1/B = 0.125"),
        (PAIRS, "N = 4"),
        (0.5, "1/2 = 0.5"),
        (-1.0, "-1"),
        (-SIGMA, "-sigma = -0.01"),
    ],
)
def test_a_wrong_length_is_named(factor: float, name: str) -> None:
    found = gp.audit(times(factor), classifier(), **TOLD)
    assert len(found.problems) == 1, str(found)
    assert f"which looks like {name}." in found.problems[0]
    assert ("its sign is turned" in found.problems[0]) == (factor < 0)


def test_a_length_that_could_be_two_things_lists_both() -> None:
    found = gp.audit(times(8.0), classifier(), samples=8)
    assert "which could be any of B = 8, N = 8." in found.problems[0]


def test_a_length_without_a_name_is_told_with_the_way_to_one() -> None:
    found = gp.audit(times(SIGMA**2), classifier())
    assert "tell sigma= and samples=" in found.problems[0]


def stale_baseline(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """As torchopt 0.7.3's forward method: the baseline is overwritten, and sigma multiplies, not divides."""
    now = values(module)
    found = {n: torch.zeros_like(p) for n, p in now.items()}
    output = loss_at(module, now, batch)
    for _ in range(8):
        noise = {n: torch.randn_like(p) for n, p in now.items()}
        output = loss_at(module, {n: p + SIGMA * noise[n] for n, p in now.items()}, batch) - output
        for n in found:
            found[n] += output * SIGMA / 8 * noise[n]
    return found


def test_a_stale_baseline_shows_in_length_and_noise() -> None:
    found = gp.audit(stale_baseline, classifier(), sigma=SIGMA, repeats=40)
    assert not found.ok
    noisy = [one for one in found.warnings if "times (in variance) that of plain antithetic ES" in one]
    assert noisy, str(found)
    assert found.evidence["noise_ratio"][1] > 10


def three_layers() -> gp.Problem:
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x, y = torch.randn(8, 4, generator=generator), torch.randint(0, 4, (8,), generator=generator)
    return gp.Problem(module, (x, y))


def test_layers_in_the_wrong_order_are_told_apart() -> None:
    def turned(module, batch):
        grads = list(antithetic(module, batch).values())
        return [g for pair in reversed(list(zip(grads[::2], grads[1::2], strict=True))) for g in pair]

    found = gp.audit(turned, three_layers())
    assert any("layer '0'" in one and "is the gradient of '4.weight'" in one for one in found.problems), str(
        found
    )
    assert any("layer '4'" in one and "is the gradient of '0.weight'" in one for one in found.problems)
    assert not any("layer '2'" in one for one in found.problems)


def test_one_layer_with_a_length_of_its_own_is_found() -> None:
    def uneven(module, batch):
        grads = antithetic(module, batch)
        return grads | {"0.weight": 3 * grads["0.weight"], "0.bias": 3 * grads["0.bias"]}

    (problem,) = gp.audit(uneven, three_layers()).problems
    assert problem.startswith("in layer '0' its length along the gradient is ")


def test_a_direction_that_is_not_the_gradient_is_found() -> None:
    def signs(module, batch):
        return [g.sign() for g in autograd(module, batch)]

    found = gp.audit(signs, classifier())
    assert any("its mean is not the gradient" in one for one in found.problems), str(found)
    meant = gp.audit(signs, classifier(), target="surrogate")
    assert meant.ok, str(meant)
    assert meant.warnings


def test_a_noisy_direction_that_is_not_the_gradient_is_found() -> None:
    """Weight decay that somebody forgot in it."""

    def decayed(module, batch):
        return {n: d + 0.2 * module.get_parameter(n).detach() for n, d in antithetic(module, batch).items()}

    problem = classifier()
    found = gp.audit(decayed, problem)
    assert any("its mean is not the gradient" in one for one in found.problems), str(found)
    flat = [
        torch.cat([d.flatten() for d in each])
        for each in (
            list(values(problem.module).values()),
            [*autograd(problem.module, (problem.inputs, problem.target))],
        )
    ]
    mean = flat[1] + 0.2 * flat[0]
    cosine = float(torch.cosine_similarity(mean, flat[1], dim=0))
    assert cosine < 0.85
    assert found.evidence["parts"]["the whole model"]["most"] >= cosine


@pytest.mark.parametrize("how", ["global", "own"])
def test_a_fixed_seed_is_found(how: str) -> None:
    def fixed(module, batch):
        if how == "global":
            torch.manual_seed(0)
            return antithetic(module, batch)
        generator = torch.Generator().manual_seed(0)
        return antithetic(module, batch, lambda p: torch.randn(p.shape, generator=generator))

    found = gp.audit(fixed, classifier())
    assert len(found.problems) == 1, str(found)
    assert "its noise has a fixed seed" in found.problems[0]
    assert any("seeds the global generator of torch" in one for one in found.warnings) is False
    assert found.evidence["deterministic"]


def test_code_that_seeds_the_global_generator_before_a_right_gradient_is_warned_of() -> None:
    def seeds(module, batch):
        torch.manual_seed(0)
        torch.randn(3)
        backward(module, batch)

    found = gp.audit(seeds, classifier())
    assert found.ok
    assert any("seeds the global generator of torch itself" in one for one in found.warnings)


def test_an_unseeded_generator_is_found() -> None:
    def unseeded(module, batch):
        generator = np.random.default_rng()
        return antithetic(module, batch, lambda p: torch.tensor(generator.normal(size=p.shape)).to(p))

    found = gp.audit(unseeded, classifier())
    assert any("a generator that is not seeded" in one for one in found.problems), str(found)


def test_an_own_generator_that_goes_on_is_no_fault_and_is_told() -> None:
    mine = torch.Generator().manual_seed(5)

    def own(module, batch):
        return antithetic(module, batch, lambda p: torch.randn(p.shape, generator=mine))

    found = gp.audit(own, classifier())
    assert found.ok, str(found)
    assert any("its own generator 'mine' goes on from call to call" in one for one in found.warnings)


def test_state_between_calls_is_found_and_named() -> None:
    baseline = [0.0]

    def leaking(module, batch):
        now = values(module)
        noise = {n: torch.randn_like(p) for n, p in now.items()}
        loss = float(loss_at(module, {n: p + noise[n] for n, p in now.items()}, batch))
        change = loss - baseline[0]
        baseline[0] = 0.9 * baseline[0] + 0.1 * loss
        return {n: change * eps for n, eps in noise.items()}

    found = gp.audit(leaking, classifier(), sigma=1.0)
    assert any("calls are not independent" in one and "baseline[0]" in one for one in found.problems), str(
        found
    )


def test_a_call_that_depends_on_those_long_before_is_found() -> None:
    count = itertools.count()

    def tiring(module, batch):
        return {n: d * (1 if next(count) < 40 else 2) for n, d in antithetic(module, batch).items()}

    found = gp.audit(tiring, classifier(), samples=PAIRS)
    assert any("the order of calls matters" in one for one in found.problems), str(found)


def test_gradients_that_are_not_cleared_are_found() -> None:
    def uncleared(module, batch):
        backward(module, batch)
        return {n: p.grad for n, p in module.named_parameters()}

    found = gp.audit(uncleared, classifier())
    assert any("does not clear .grad first" in one for one in found.problems), str(found)

    def cleared(module, batch):
        module.zero_grad()
        return uncleared(module, batch)

    found = gp.audit(cleared, classifier())
    assert found.ok, str(found)
    assert any("leaves something in .grad" in one for one in found.warnings)


def test_gradients_added_up_over_passes_are_found() -> None:
    def added(module, batch):
        for _ in range(PAIRS):
            backward(module, batch)

    (problem,) = gp.audit(added, classifier(), samples=PAIRS).problems
    assert "looks like N = 4" in problem


def test_a_dropped_layer_is_found_whether_it_is_missing_or_zero() -> None:
    def missing(module, batch):
        return {n: d for n, d in antithetic(module, batch).items() if not n.startswith("first")}

    def zero(module, batch):
        return {n: d * (not n.startswith("first")) for n, d in antithetic(module, batch).items()}

    assert any(
        "returns nothing for 'first.weight'" in one for one in gp.audit(missing, classifier()).problems
    )
    assert any("'first.bias' is always 0" in one for one in gp.audit(zero, classifier()).problems)


def test_nothing_at_all_is_told_as_that() -> None:
    found = gp.audit(lambda module, batch: None, classifier())
    (problem,) = found.problems
    assert problem.startswith("it returns None and leaves no .grad for 'first.weight'")
    assert not any(one.startswith(".grad") for one in found.findings)


def test_a_turned_layer_has_a_negative_cosine() -> None:
    def turned(module, batch):
        backward(module, batch)
        module.get_parameter("last.weight").grad.neg_()

    found = gp.audit(turned, classifier())
    assert any("in layer 'last' its sign is turned" in one for one in found.problems)
    told = [one for one in (*found.problems, *found.warnings) if "cosine" in one and "'last'" in one]
    assert told, str(found)
    assert all("the gradient is -0." in one for one in told), str(found)


def test_shapes_are_told_for_a_few_and_named_for_the_rest() -> None:
    class Deep(nn.Sequential):
        def __init__(self):
            super().__init__(*(nn.Linear(4, 4) for _ in range(3)))

    problem = gp.Problem(Deep(), batch=(torch.randn(5, 4), torch.arange(5) % 4), loss="cross_entropy")
    found = gp.audit(lambda module, batch: {n: True for n, _ in module.named_parameters()}, problem)
    assert sum("returns shape []" in one for one in found.problems) == 4
    assert any("another shape than the parameter's for '2.weight', '2.bias' too" in o for o in found.problems)


def test_an_exit_inside_the_function_is_told() -> None:
    def leaves(module, batch):
        raise SystemExit(3)

    with pytest.raises(gp.UsageError, match="SystemExit: 3"):
        gp.audit(leaves, classifier())


def test_a_training_step_may_move_the_weights() -> None:
    def step(module, batch):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        optimizer.zero_grad()
        backward(module, batch)
        optimizer.step()

    found = gp.audit(step, classifier())
    assert found.ok, str(found)
    assert any("leaves the weights changed" in one for one in found.warnings)


def test_wrong_names_and_shapes_are_found() -> None:
    def wrong(module, batch):
        found = antithetic(module, batch)
        return {"last.weight": found.pop("last.weight").T, "lsat.bias": found.pop("last.bias"), **found}

    found = gp.audit(wrong, classifier())
    assert any("shape [5, 3] for 'last.weight'" in one for one in found.problems)
    assert any("nothing for 'last.bias'" in one for one in found.problems)
    assert any("no parameter: 'lsat.bias'" in one for one in found.warnings)


@pytest.mark.parametrize("often", [1.0, 0.1])
def test_values_that_are_not_finite_are_found(often: float) -> None:
    def failing(module, batch):
        found = antithetic(module, batch)
        found["last.bias"] = (
            found["last.bias"] / float(torch.rand(()) >= often)
            if often < 1
            else torch.nan * found["last.bias"]
        )
        return found

    found = gp.audit(failing, classifier())
    assert any("NaN or infinite values" in one for one in found.problems), str(found)


def test_weights_that_are_not_put_back_are_found() -> None:
    def drifting(module, batch):
        found = forward_difference(module, batch)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.01)
        return found

    found = gp.audit(drifting, classifier())
    assert any("leaves the weights changed" in one for one in found.warnings)
    assert not found.problems  # a side effect: its directions are right


def test_rounding_of_weights_that_are_put_back_by_adding_is_told() -> None:
    """MeZO's way: + noise, - 2 noise, + noise."""

    def mezo(module, batch):
        noise = {n: torch.randn_like(p) for n, p in module.named_parameters()}
        losses = []
        with torch.no_grad():
            for step in (1, -2, 1):
                for n, p in module.named_parameters():
                    p.add_(step * SIGMA * noise[n])
                losses.append(F.cross_entropy(module(batch[0]), batch[1]))
        return {n: (losses[0] - losses[1]) / (2 * SIGMA) * eps for n, eps in noise.items()}

    found = gp.audit(mezo, classifier(), repeats=60)
    assert found.ok, str(found)
    assert any("leaves the weights changed" in one for one in found.warnings)


def test_everything_else_that_is_left_behind_is_told_and_put_back() -> None:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc, self.seen = nn.BatchNorm1d(4), nn.Linear(4, 3), 0

        def forward(self, x):
            return self.fc(self.norm(x))

    problem = gp.Problem(Model(), (torch.randn(8, 4), torch.randint(0, 3, (8,))))
    states = []

    def untidy(module, batch):
        states.append(
            (module.training, module.seen, module.fc.weight.requires_grad, len(module.fc._forward_hooks))
        )
        backward(module, batch)
        module.train()
        module(batch[0])
        module.seen += 1
        module.fc.weight.requires_grad_(False)
        module.fc.register_forward_hook(lambda *args: None)
        batch[0].add_(1)

    found = gp.audit(untidy, problem)
    assert found.ok, str(found)
    for text in (
        "buffers",
        "requires_grad",
        "train() and eval()",
        "hooks on 'fc'",
        "'seen'",
        "batch in place",
    ):
        assert any(text in one for one in found.warnings), text
    assert len(states) > 3
    assert set(states) == {(False, 0, True, 0)}


def test_a_module_that_is_rebuilt_is_replaced_before_the_next_call() -> None:
    def rebuilt(module, batch):
        assert isinstance(module.last, nn.Linear)
        module.zero_grad()
        backward(module, batch)
        grads = {n: p.grad for n, p in module.named_parameters()}
        module.last = nn.Identity()
        return grads

    found = gp.audit(rebuilt, classifier())
    assert found.ok, str(found)
    assert any("changes what the module is made of" in one for one in found.warnings)
