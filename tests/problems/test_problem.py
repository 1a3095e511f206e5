from __future__ import annotations

import collections
import copy
import pickle
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradprobe as gp
from gradprobe import Problem, UsageError
from gradprobe.problems.losses import LOSSES
from tests.problems_small import CATALOGUE, build
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


class Masked(nn.Module):
    """Time comes first in the inputs and the samples in the mask, as torch's encoder has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.layer(x) * mask.T[..., None]).sum(0)


@pytest.mark.parametrize(("steps", "axis"), [(3, 1), (5, 1)])
def test_samples_lie_where_most_inputs_have_them(steps: int, axis: int) -> None:
    """Along axis 0 the mask alone has a row for each sample: to move it proves nothing about the other input."""
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(steps, 4, 2, generator=generator), torch.rand(4, steps, generator=generator)
    problem = Problem(Masked(), ({"x": x, "mask": mask}, torch.arange(4) % 3))
    assert (problem.loss_per, problem.batch_axis) == ("sample", axis)
    once = problem.evaluate()
    torch.testing.assert_close(problem.evaluate(repeats=2), torch.cat([once, once]))
    assert problem.separable


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


class Pair(nn.Module):
    """Two outputs, of which none is said to be the one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x), -self.fc(x)


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
        (lambda x, y: Problem(Pair(), (x, y)), "with the outputs 0, 1; say with output="),
        (lambda x, y: Problem(Pair(), (x, y), output="logit"), "unknown output 'logit'. Known: 0, 1"),
        (lambda x, y: Problem(Pair(), (x, y), output=2), "unknown output '2'"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), output="logits"), "none, it is a Tensor"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), batch_axis=1), "batch_axis=1 does not fit"),
        (lambda x, y: Problem(nn.Linear(4, 3), (x, y), precision="bf16"), "unknown precision 'bf16'"),
        (lambda x, y: Problem(nn.Linear(4, 3, device="meta"), (x, y)), "on the meta device"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Lazy modules are a new feature:UserWarning"
)  # torch's own, at construction
def test_bad_input_is_one_sentence(make, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make(*data())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("output", "sign"), [(0, 1), (1, -1), (lambda found: found[1], -1)])
def test_the_loss_is_given_the_output_that_was_asked_for(output, sign: int) -> None:
    x, y = data()
    module = Pair()
    losses = F.cross_entropy(sign * module.fc(x), y, reduction="none")
    assert torch.equal(Problem(module, (x, y), output=output).evaluate(), losses)
    whole = Problem(module, (x, y), lambda found, target: F.cross_entropy(found[0], target, reduction="none"))
    assert torch.equal(whole.evaluate(), F.cross_entropy(module.fc(x), y, reduction="none"))


def test_half_precision_is_run_as_float32_and_follows_the_users_values() -> None:
    x, y = data()
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).bfloat16()
    problem = Problem(module, (x.bfloat16(), y))
    for change in (0.0, 0.5):
        with torch.no_grad():
            module[0].weight.add_(change)
        module[1].running_mean.add_(change)
        problem.refresh()
        wide = copy.deepcopy(module).float().eval()
        losses = F.cross_entropy(wide(x.bfloat16().float()), y, reduction="none")
        assert torch.equal(problem.evaluate(), losses)
        found = gp.estimate(problem, "bp")
        assert torch.equal(found["0.weight"], torch.autograd.grad(losses.mean(), wide[0].weight)[0])
    assert module[0].weight.dtype == module[1].running_mean.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_model_may_be_run_in_float64(dtype: torch.dtype) -> None:
    x, y = data()
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    found = gp.estimate(Problem(module, (x.to(dtype), y), precision="float64"), "lr", copies=10)
    wide = Problem(copy.deepcopy(module).double(), (x.to(dtype).double(), y))
    expected = gp.estimate(wide, "lr", copies=10)
    for name, direction in found.items():
        assert direction.dtype == torch.float64
        torch.testing.assert_close(direction, expected[name], rtol=1e-12, atol=1e-12)
    assert next(module.parameters()).dtype == dtype


@pytest.mark.parametrize("estimator", ["bp", "lr", "alr", "es", "lr(injection=joint)"])
def test_half_precision_may_stay_as_it_is(estimator: str) -> None:
    """Against the same weights in float32: noise is rounded by one part in 256, a direction by little more."""
    x, y = data()
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).bfloat16()
    options = {} if estimator == "bp" else {"copies": 10, "sigma": 1.0}
    half, wide = (
        gp.estimate(Problem(module, (x.bfloat16(), y), precision=p), estimator, **options)
        for p in ("as-is", "float32")
    )
    for name in wide:
        assert (half[name].float() - wide[name]).norm() < 0.1 * wide[name].norm()


def test_what_a_forward_keeps_is_put_back() -> None:
    problem = build("stateful")
    once = problem.evaluate()
    gp.estimate(problem, "lr", copies=4)
    assert torch.equal(problem.evaluate(), once)
    assert problem.twin.potential is None
    assert problem.twin.log == []
    assert problem.module.potential is None


def test_state_on_the_users_graph_is_taken_over_without_it() -> None:
    module, (x, y), loss = CATALOGUE["stateful"]()
    module(x).sum()  # leaves a potential with a graph
    problem = Problem(module, (x, y), loss)
    expected = loss(copy_of_state(module)(x), y)
    assert torch.equal(problem.evaluate(), expected)
    assert all(bool(v.isfinite().all()) for v in gp.estimate(problem, "bp").values())
    assert module.potential.grad_fn is not None


def copy_of_state(module: nn.Module) -> nn.Module:
    """The same module with the same state, off its graph."""
    other, *_ = CATALOGUE["stateful"]()
    other.load_state_dict(module.state_dict())
    other.potential, other.log = module.potential.detach(), [t.detach() for t in module.log]
    other.trace = module.trace.detach()
    return other


class Shares(nn.Module):
    """Writes what it computed into a container that another module reads."""

    def __init__(self, board: object, writes: bool) -> None:
        super().__init__()
        self.board, self.writes, self.fc = board, writes, nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        if self.writes:
            self.board["h"] = torch.tanh(h)
            return h
        return h + 3 * self.board["h"]


class Board:
    """No plain container: an object with an attribute."""

    def __setitem__(self, name: str, value: torch.Tensor) -> None:
        setattr(self, name, value)

    def __getitem__(self, name: str) -> torch.Tensor:
        return getattr(self, name)


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used before"])
@pytest.mark.parametrize("board", [dict, Board])
def test_what_modules_share_they_go_on_sharing(board: type, used: bool) -> None:
    x, y = data()
    shared = board()
    module = nn.Sequential(Shares(shared, writes=True), Shares(shared, writes=False))
    if used:
        module(x)
    found = gp.estimate(Problem(module, (x, y)), "bp")
    expected = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))
    for name, gradient in zip(dict(module.named_parameters()), expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_what_is_put_back_are_contents_and_values() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.seen = nn.Linear(4, 3), collections.deque([0], maxlen=2)
            self.kinds, self.total, self.last = {"a"}, torch.zeros(()), (1, "a")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(len(self.seen))
            self.kinds.add("b")
            self.total.add_(1)
            self.last = (2, "b")
            return self.fc(x) * self.total * sum(self.seen)

    problem = Problem(Counts(), data())
    twin, kept = problem.twin, problem.twin.seen
    for _ in range(2):
        problem.evaluate()
        assert (list(twin.seen), twin.kinds, float(twin.total), twin.last) == ([0], {"a"}, 0.0, (1, "a"))
    assert twin.seen is kept
    assert {"seen", "kinds", "total", "last"} <= set(problem.kept_apart)
    assert "fc" not in problem.kept_apart


def test_a_model_that_fails_the_second_time_is_told_in_one_sentence() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("only once")
            return self.fc(x)

    calls: list[int] = []
    with pytest.raises(UsageError, match="fails when it is run again on this batch: RuntimeError: only once"):
        Problem(Once(), data())


class Listed(nn.Module):
    """Kept in a list of its class, through which a forward resets all of its kind (as snntorch does)."""

    every: ClassVar[list] = []

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.kept = nn.Linear(4, 3), torch.zeros(())
        self.every.append(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for one in self.every:
            one.kept = torch.zeros(())
        self.kept = self.kept + self.fc(x).mean()
        return self.fc(x) + self.kept


def test_lists_in_classes_hold_the_twin_while_it_runs() -> None:
    module = Listed()
    module(data()[0])
    kept = module.kept
    assert float(kept.detach()) != 0
    problem = Problem(module, data())
    expected = F.cross_entropy(
        module.fc(data()[0]) + module.fc(data()[0]).mean(), data()[1], reduction="none"
    )
    torch.testing.assert_close(problem.evaluate(), expected.detach())
    assert module.kept is kept
    sent = pickle.loads(pickle.dumps(problem))  # to a process whose list holds none of its modules
    torch.testing.assert_close(sent.evaluate(), expected.detach())
    assert Listed.every == [module]


class Fused(nn.Module):
    """A recurrent module whose weights the model reads itself."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x[:, None])[0][:, 0] @ self.rnn.weight_hh_l0[:3]


def test_fused_recurrent_modules_follow_their_weights_and_can_be_sent() -> None:
    """torch keeps their weights a second time, in a list that is no state of the model's."""

    net, (x, y) = Fused(), data()
    problem = Problem(net, (x, y))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
        expected = F.cross_entropy(net(x), y, reduction="none")
        torch.testing.assert_close(problem.evaluate(), expected)
        torch.testing.assert_close(pickle.loads(pickle.dumps(problem)).evaluate(), expected)


def test_values_that_a_forward_changes_are_left_as_they_were_given() -> None:
    """An embedding with max_norm rescales its weight in place: a copy of it, also where the value is an override."""
    problem = build("max-norm")
    given = 3 * problem.parameters["0.weight"]
    kept = given.clone()
    other = problem.at({"0.weight": given})
    assert torch.equal(other.evaluate(), other.evaluate())
    assert torch.equal(given, kept)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_few_classes_under_vmap_have_the_same_losses(scale: float) -> None:
    scores = scale * torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 1, 0])
    found = torch.func.vmap(lambda one: LOSSES["cross_entropy"](one, target))(scores)
    double = torch.stack([F.cross_entropy(one.double(), target, reduction="none") for one in scores])
    assert torch.allclose(found.double(), double, rtol=1e-6, atol=1e-6)
    ignored = torch.tensor([0, -100, 2, 1, 0])
    found = torch.func.vmap(lambda one: LOSSES["cross_entropy"](one, ignored))(scores)
    assert (found[:, 1] == 0).all()


def test_a_look_is_a_refresh_at_powers_of_two_and_where_tensors_are_of_another_kind() -> None:
    x, y = data()
    module = nn.Linear(4, 3)
    problem = Problem(module, (x, y))
    assert [problem.look() for _ in range(9)] == [n in (1, 2, 4, 8) for n in range(1, 10)]
    module.weight.requires_grad_(False)
    assert problem.look()
    module.weight = nn.Parameter(torch.zeros(3, 4))
    assert problem.look()
    assert not problem.look()


def test_a_look_finds_losses_that_are_no_longer_the_samples_own() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate = nn.Linear(4, 3), nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x))
            return h + self.gate * h.roll(1, 0)

    x, y = data()
    problem = Problem(Gated(), (x, y))
    for _ in range(5):
        problem.look()
    with torch.no_grad():
        problem.module.gate.fill_(3.0)
    assert problem.look()
    assert problem.loss_per == "copy"


def test_a_look_refuses_losses_that_are_not_finite() -> None:
    x, y = data()
    problem = Problem(nn.Linear(4, 3), (x, y))
    for _ in range(4):
        problem.look()
    with torch.no_grad():
        problem.module.weight.fill_(float("nan"))
    with pytest.raises(gp.UsageError, match="not finite"):
        problem.look()


def test_values_may_change_between_forwards_of_one_call() -> None:
    x, y = data()
    for module in (nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))):
        problem = Problem(module, (x, y), mode="as-is")
        name = next(iter(problem.parameters))
        place = {name: torch.empty_like(problem.parameters[name])}
        values = [problem.parameters[name] * k for k in (1, 2, 3)]

        def steps(values=values, place=place, name=name):
            for value in values:
                place[name].copy_(value)
                yield

        with torch.no_grad():
            found = problem.evaluate_each(place, steps())
            expected = torch.stack([problem.evaluate({name: value}) for value in values])
        assert torch.equal(found, expected)
