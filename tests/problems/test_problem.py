from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradprobe import Problem, UsageError
from tests.problems_tiny import classifier


def data(samples: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 4, generator=generator), torch.randint(0, 3, (samples,), generator=generator)


def test_per_sample_losses_are_found() -> None:
    problem = Problem(nn.Linear(4, 3), data())
    assert problem.loss_per == "sample"
    assert problem.evaluate().shape == (8,)
    assert torch.allclose(problem.weights, torch.full((8,), 1 / 8, dtype=torch.float64))


def test_a_scalar_loss_is_the_copys() -> None:
    problem = Problem(nn.Linear(4, 3), data(), lambda output, target: F.cross_entropy(output, target))
    assert problem.loss_per == "copy"
    assert problem.evaluate().shape == ()


def test_dependent_samples_are_found() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    assert Problem(module.train(), data(), mode="as-is").loss_per == "copy"
    assert Problem(module.train(), data()).loss_per == "sample"


def test_losses_that_depend_on_the_next_sample_only_are_found() -> None:
    class Shift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3] + 0.01 * x.roll(1, 0)[:, :3]

    assert Problem(Shift(), data()).loss_per == "copy"


def test_named_losses_are_means_over_all_axes_but_the_first() -> None:
    module, (x, _) = nn.Linear(4, 3), data()
    y = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(Problem(module, (x, y), "mse").evaluate().mean(), F.mse_loss(module(x), y))


def test_train_mode_buffers_of_the_user_stay() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).train()
    before = copy.deepcopy(module.state_dict())
    problem = Problem(module, data(), mode="as-is")
    first = problem.evaluate()
    assert torch.equal(first, problem.evaluate())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module.training


def test_values_follow_the_users_training() -> None:
    problem = classifier()
    before = problem.clean_losses()
    with torch.no_grad():
        problem.module.first.weight.mul_(2)
    assert not torch.equal(problem.clean_losses(), before)


def test_clean_losses_are_computed_once_while_frozen() -> None:
    problem = classifier()
    with problem.frozen():
        count = problem.forwards
        problem.clean_losses()
        problem.clean_losses()
        assert problem.forwards == count + 1
    problem.clean_losses()
    assert problem.forwards == count + 2


def test_other_values_leave_the_module_alone() -> None:
    problem = classifier()
    weight = problem.parameters["first.weight"]
    other = problem.at({"first.weight": weight * 3})
    assert not torch.equal(other.clean_losses(), problem.clean_losses())
    assert torch.equal(problem.module.first.weight, weight)
    with pytest.raises(UsageError, match="Did you mean 'first.weight'"):
        problem.at({"first.wight": weight})


def test_dict_and_tuple_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.a(x) * scale

    x, y = data()
    scale = torch.rand(8, 1)
    module = Two()
    a = Problem(module, ((x, scale), y))
    b = Problem(module, ({"x": x, "scale": scale}, y))
    assert torch.equal(a.evaluate(), b.evaluate())
    assert torch.equal(a.evaluate(repeats=2), torch.cat([a.evaluate(), a.evaluate()]))


def test_fingerprints_tell_model_batch_and_loss_apart() -> None:
    same = classifier().fingerprints()
    assert classifier().fingerprints() == same
    other = classifier(seed=1).fingerprints()
    assert other["model"] != same["model"]
    assert other["batch"] != same["batch"]
    assert other["loss"] == same["loss"]
    x, y = data()
    assert Problem(nn.Linear(4, 3), (x, y), "nll").fingerprints()["loss"] != same["loss"]


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of luck")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y[:-1])), "8 inputs but 7 targets"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), "cross_entropi"), "Did you mean 'cross_entropy'"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x * float("nan"), y)), "not finite"),
        (lambda x, y: Problem(nn.Linear(5, 3), (x, y)), "fails on this batch"),
        (lambda x, y: Problem(Failing(), (x, y)), "out of luck"),
        (lambda x, y: Problem(nn.Linear(4, 2), (x, y + 5)), "fails on this batch"),
        (
            lambda x, y: Problem(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), (x, y), mode="as-is"),
            "different losses",
        ),
        (lambda x, y: Problem(nn.LazyLinear(3), (x, y)), "lazy"),
        (lambda x, y: Problem(nn.Linear(4, 3), x), "pair"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), lambda o, t: o), "must return losses"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), lambda o, t: 1.0), "must return a tensor"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), weights=torch.ones(3)), "weights have shape"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), mode="train"), "mode 'train'"),
        (lambda x, y: Problem(nn.LSTM(4, 3), (x, y)), "not a tensor"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Lazy modules are a new feature:UserWarning"
)  # torch's own, at construction
def test_bad_input_is_one_sentence(make, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make(*data())
    assert "\n" not in str(caught.value)


def test_half_precision_is_refused() -> None:
    x, y = data()
    with pytest.raises(UsageError, match="half precision"):
        Problem(nn.Linear(4, 3).bfloat16(), (x.bfloat16(), y))
