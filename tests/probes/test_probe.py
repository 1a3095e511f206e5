from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import Block, Estimator, Layer, Problem, Streams, make, make_all
from gradprobe.layers.find import find_layers
from tests.problems_tiny import classifier, linear_problem

SMALL = {"copies": 12, "block": 4, "seeds": 2}


def blocks(problem: Problem, spec: str, seed: int, count: int, size: int) -> list[dict[str, torch.Tensor]]:
    layers = find_layers(problem).layers
    estimator = make(spec).estimator
    return [estimator.directions(problem, layers, Block(k, size), Streams(0, seed)) for k in range(count)]


@pytest.mark.parametrize(
    "spec", ["lr", "alr", "es", "a-hybrid", "lr(injection=joint)", "aes(injection=joint)"]
)
def test_moments_are_those_of_the_directions(spec: str) -> None:
    problem = classifier()
    ds = gp.probe(problem, [spec], **SMALL)
    gradient = gp.estimate(problem, "bp", copies=1)
    for seed in range(2):
        found = blocks(problem, spec, seed, 3, 4)
        for name in gradient:
            b = torch.stack([d[name].double().flatten() for d in found])
            mean = b.cumsum(0) / torch.arange(1, 4).view(-1, 1)
            at = ds.sel(parameter=name, seed=seed).isel(estimator=0)
            g = gradient[name].double().flatten()
            assert np.allclose(at["dot"].sel(reference="bp"), mean @ g, rtol=1e-6, atol=1e-12)
            assert np.allclose(at["sqnorm"], (mean**2).sum(1), rtol=1e-6)
            squares = (b**2).sum(1).cumsum(0) / torch.arange(1, 4)
            assert np.allclose(at["block_sqnorm"], squares, rtol=1e-6)
            assert np.allclose(at["reference_sqnorm"].sel(reference="bp"), float(g @ g), rtol=1e-6)


def test_estimate_is_what_probe_measures() -> None:
    problem = classifier()
    ds = gp.probe(problem, ["lr"], **SMALL)
    found = gp.estimate(problem, "lr", copies=12, block=4, seed=1)
    for name, direction in found.items():
        stored = ds["sqnorm"].sel(parameter=name, seed=1, copies=12).item()
        assert float((direction.double() ** 2).sum()) == pytest.approx(stored, rel=1e-5)


def test_shared_draws_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = classifier()
    gp.probe(problem, ["lr", "es"], **SMALL)
    start = problem.forwards
    gp.probe(problem, ["lr", "es"], **SMALL)
    two = problem.forwards - start
    gp.probe(problem, ["lr", "alr", "es", "aes", "hybrid", "a-hybrid"], **SMALL)
    assert problem.forwards - start - two == two


def test_forwards_are_booked_once_and_add_up() -> None:
    ds = gp.probe(classifier(), ["lr", "lr(injection=joint)", "bp"], **SMALL)
    total = ds["forwards"].sum("parameter").isel(seed=0, copies=-1)
    assert total.sel(estimator="lr") == 2 * 12
    assert total.sel(estimator="lr(injection=joint)") == 12
    assert total.sel(estimator="bp") == 1


def test_deterministic_estimators_are_flat_lines() -> None:
    ds = gp.probe(classifier(), ["lr", "bp"], **SMALL)
    cosine = gp.stats.cosine(ds).sel(estimator="bp")
    assert np.allclose(cosine, 1.0)
    assert cosine.sizes == {"layer": 2, "seed": 2, "copies": 3}


def test_coverage_counts_what_was_left_out() -> None:
    problem = classifier()
    whole = gp.stats.coverage(gp.probe(problem, ["lr"], **SMALL))
    part = gp.stats.coverage(gp.probe(problem, ["lr"], layers="last", **SMALL))
    assert float(whole.sel(estimator="lr")) == pytest.approx(1.0, rel=1e-6)
    assert 0 < float(part.sel(estimator="lr")) < 1


def test_smoothed_reference_has_its_own_noise_and_moments() -> None:
    problem = linear_problem()
    ds = gp.probe(problem, ["lr"], reference="smoothed", reference_copies=12, **SMALL)
    assert list(ds.reference.values) == ["bp", "smoothed"]
    # on a quadratic the smoothed gradient is the gradient, and pathwise noise is proportional to sigma
    ratio = ds["reference_dot"].sel(reference="smoothed") / ds["reference_sqnorm"].sel(reference="bp")
    assert np.allclose(ratio, 1, atol=0.1)
    assert (ds["reference_blocks"].sel(reference="smoothed") == 3).all()
    assert (ds["reference_blocks"].sel(reference="bp") == 1).all()
    squares = ds["reference_block_sqnorm"] > ds["reference_sqnorm"]
    assert squares.sel(reference="smoothed").all()


def test_run_options_reach_the_estimators_that_have_them() -> None:
    ds = gp.probe(classifier(), ["lr", "es(sigma=0.2)", "bp"], sigma=0.1, **SMALL)
    assert list(ds.estimator.values) == ["lr(sigma=0.1)", "es(sigma=0.2)", "bp"]
    assert list(gp.probe(classifier(), ["lr"], sigma=0.01, **SMALL).estimator.values) == ["lr"]


class Unlucky(nn.Module):
    """Finite without noise; with noise not, always or now and then."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.threshold = threshold
        self.clean: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.clean is None:
            return self.last(torch.tanh(h))
        clean = self.clean if len(h) == len(self.clean) else self.clean.repeat(len(h) // len(self.clean), 1)
        moved = (h - clean).abs().amax(1, keepdim=True) > self.threshold
        return torch.where(moved, float("nan"), self.last(torch.tanh(h)))


def unlucky(threshold: float) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator)
    module = Unlucky(threshold)
    module.clean = module.first(x).detach()
    return Problem(module, (x, torch.arange(8) % 3))


def probe_unlucky(threshold: float, **options: object) -> tuple[Problem, object]:
    problem = unlucky(threshold)
    problem.once("layers", lambda: find_layers(Problem(_plain(problem), (problem.inputs, problem.target))))
    return problem, gp.probe(problem, ["lr"], sigma=0.1, **SMALL, **options)


def _plain(problem: Problem) -> nn.Module:
    module = Unlucky(float("inf"))
    module.load_state_dict(problem.module.state_dict())
    return module


def test_copies_with_a_loss_that_is_not_finite_are_left_out_and_counted() -> None:
    _, ds = probe_unlucky(0.28)
    lost = ds["nonfinite"].sel(parameter="first.weight").isel(estimator=0)
    assert 0 < lost.isel(copies=-1).sum() < 24
    assert (lost.diff("copies") >= 0).all()
    assert ds["sqnorm"].notnull().all()
    assert (ds.status == "ok").all()


def test_a_unit_whose_copies_all_fail_is_marked_and_the_others_go_on() -> None:
    _, ds = probe_unlucky(0.0)
    status = ds.status.isel(estimator=0, seed=0)
    assert status.sel(parameter="first.weight") == "failed"
    assert status.sel(parameter="last.weight") == "ok"
    assert ds["dot"].sel(parameter="first.bias").isnull().all()


def test_refused_layers_are_left_out_and_said() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.w

    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    problem = Problem(nn.Sequential(Scale(), nn.Linear(4, 3)), (x, torch.arange(6) % 3))
    ds = gp.probe(problem, ["lr", "alr"], **SMALL)
    status = ds.status.isel(seed=0).sel(parameter="0.w")
    assert list(status.values) == ["ok", "refused"]
    assert "sign of the input is not defined" in ds.attrs["refused"]
    with pytest.raises(gp.UsageError, match="serves none of the layers"):
        gp.probe(problem, ["alr"], layers="0", **SMALL)
    with pytest.raises(gp.UsageError, match="choose layers"):
        gp.estimate(problem, "alr")


@dataclass(frozen=True)
class Signed(Estimator):
    """Sign of the gradient."""

    @property
    def target(self) -> str:
        return "surrogate"

    stochastic = False

    def directions(self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams) -> dict:
        found = make("bp").estimator.directions(problem, layers, block, streams)
        return {name: g.sign() for name, g in found.items()}


def test_a_users_estimator_needs_no_registration() -> None:
    ds = gp.probe(classifier(), [Signed(), "lr"], **SMALL)
    assert list(ds.estimator.values) == ["Signed", "lr"]
    assert ds["summary"].values[0] == "Sign of the gradient."
    cosine = gp.stats.cosine(ds).sel(estimator="Signed")
    assert ((cosine > 0) & (cosine < 1)).all()


def test_a_user_registers_by_decorator() -> None:
    gp.register_estimator("signed", summary="x", color="#123456")(Signed)
    try:
        ds = gp.probe(classifier(), ["signed"], **SMALL)
        assert list(ds.color.values) == ["#123456"]
        assert "signed" in gp.list_estimators().index
    finally:
        del ESTIMATORS._entries["signed"]


BAD = [
    ({"estimators": ["lrr"]}, "Did you mean 'lr'"),
    ({"estimators": []}, "no estimators given"),
    ({"estimators": ["lr", "lr(sigma=0.01)"]}, "given twice"),
    ({"estimators": ["lr(sigm=0.1)"]}, "Did you mean 'sigma'"),
    ({"estimators": ["lr(noise=gausian)"]}, "Did you mean 'gaussian'"),
    ({"estimators": ["lr(sigma=-1)"]}, "positive number"),
    ({"estimators": ["lr(sigma=abc)"]}, "positive number"),
    ({"estimators": ["lr(sigma={'first': 0.1})"]}, "says nothing of layer 'last'"),
    ({"estimators": ["es(encode=sign-input)"]}, "no meaning for weight noise"),
    ({"estimators": ["lr(antithetic=True)"], "copies": 15, "block": 5}, "even block"),
    ({"estimators": ["lr(centre=mean)"], "copies": 4, "block": 1}, "larger block"),
    ({"estimators": ["hybrid(es_layers=-1)"]}, "es_layers"),
    ({"estimators": [3]}, "not a int"),
    ({"layers": "frist"}, "Did you mean 'first'"),
    ({"copies": 13}, "not a multiple of the block of 4; use 12 or 16"),
    ({"copies": 0}, "positive whole number"),
    ({"copies": "100"}, "positive whole number"),
    ({"block": -1}, "positive whole number"),
    ({"seeds": 0}, "seeds"),
    ({"seeds": [1, 1]}, "twice"),
    ({"reference": "smooth"}, "Did you mean 'smoothed'"),
    ({"reference": "smoothed", "reference_copies": 1}, "from 4 on"),
    ({"engine": "jax"}, "unknown engine"),
    ({"engine": "auto x10"}, "'auto' takes no further words"),
    ({"engine": "tile graph"}, "leave out 'graph'"),
    ({"sigmaa": 0.1}, "Did you mean 'sigma'"),
    ({"estimators": ["fg-w", "fa"], "sigma": 0.1}, "no option sigma for fg-w, fa; leave it out, or add"),
    ({"estimators": ["lr"], "feedback_seed": 1}, "such as (fa|sign-symmetric|dfa)"),
]


@pytest.mark.parametrize(("options", "says"), BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(options: dict, says: str, tmp_path) -> None:
    given = {"estimators": ["lr", "es"], **SMALL, **options}
    with pytest.raises(gp.UsageError, match=says) as caught:
        gp.probe(classifier(), out=tmp_path / "run", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_labels_are_canonical() -> None:
    made = make_all("lr(noise=laplace, sigma=1e-1), lr(sigma=0.01), a-hybrid(es_layers=1)")
    assert [m.label for m in made] == ["lr(noise=laplace, sigma=0.1)", "lr", "a-hybrid(es_layers=1)"]


def test_declared_targets_are_the_estimators_own() -> None:
    for entry in ESTIMATORS:
        assert make(entry.name).estimator.target == entry.meta["target"]


def test_estimate_refuses_when_no_loss_is_finite() -> None:
    problem = unlucky(0.0)
    plain = find_layers(Problem(_plain(problem), (problem.inputs, problem.target)))
    refresh = problem.refresh
    problem.refresh = lambda: (refresh(), problem.once("layers", lambda: plain))
    with pytest.raises(gp.UsageError, match="no copy's loss was finite"):
        gp.estimate(problem, "lr", copies=10, layers="first", sigma=0.1)


def test_hybrid_counts_the_models_layers_not_the_selected_ones() -> None:
    problem = classifier()
    both = gp.estimate(problem, "hybrid(es_layers=1)", copies=10)
    last = gp.estimate(problem, "hybrid(es_layers=1)", copies=10, layers="last")
    assert torch.equal(both["last.weight"], last["last.weight"])


def test_what_changes_with_values_is_looked_at_again() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate = nn.Linear(4, 3), nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x))
            return h + self.gate * h.roll(1, 0)

    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    problem = Problem(Gated(), (x, torch.arange(8) % 3))
    assert problem.loss_per == "sample"
    with torch.no_grad():
        problem.module.gate.fill_(3.0)
    gp.estimate(problem, "lr", copies=10, layers="a")
    assert problem.loss_per == "copy"


def test_replaced_tensors_are_followed() -> None:
    problem = classifier()
    problem.module.load_state_dict({k: v * 2 for k, v in problem.module.state_dict().items()}, assign=True)
    fresh = Problem(problem.module, (problem.inputs, problem.target))
    assert torch.equal(gp.estimate(problem, "bp")["last.weight"], gp.estimate(fresh, "bp")["last.weight"])


def test_common_options_do_not_reach_instances_silently() -> None:
    from gradprobe.estimators.perturbation import LR

    with pytest.raises(gp.UsageError, match="an instance already"):
        gp.probe(classifier(), [LR(), "alr"], sigma=0.5, **SMALL)


def test_deterministic_estimators_that_are_not_finite_fail() -> None:
    @dataclass(frozen=True)
    class Broken(Signed):
        def directions(self, problem, layers, block, streams):
            return {
                n: g * float("nan") for n, g in super().directions(problem, layers, block, streams).items()
            }

    ds = gp.probe(classifier(), [Broken(), "lr"], **SMALL)
    assert (ds.status.sel(estimator="Broken") == "failed").all()
    assert "not finite" in ds.attrs["notes"]


def test_inference_mode_changes_nothing() -> None:
    problem = classifier()
    with torch.inference_mode():
        inside = gp.estimate(problem, "bp")
    assert torch.equal(inside["last.weight"], gp.estimate(problem, "bp")["last.weight"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gp.probe(nn.Linear(2, 2), ["lr"]), "Problem"),
        (lambda: gp.estimate(nn.Linear(2, 2)), "Problem"),
        (lambda: Problem(nn.Linear, (torch.zeros(2, 2), torch.zeros(2))), "call it first"),
        (lambda: Problem(None, (torch.zeros(2, 2), torch.zeros(2))), "Module"),
        (lambda: Problem(nn.Linear(2, 2), (torch.zeros(0, 2), torch.zeros(0))), "empty"),
        (lambda: Problem(nn.Linear(2, 1), (torch.zeros(3, 2), torch.zeros(3)), "mse"), "must be equal"),
        (lambda: gp.probe(classifier(), ["lr"], seeds=1.5, copies=10), "seeds"),
        (lambda: gp.probe(classifier(), ["lr"], layers=3, copies=10), "layers"),
        (lambda: gp.probe(classifier(), ["lr"], layers=[], copies=10), "layers"),
        (lambda: gp.probe(classifier(), ["lr"], reference=None, copies=10), "reference"),
        (lambda: gp.probe(classifier(), None, copies=10), "estimators"),
        (lambda: gp.probe(classifier(), [ESTIMATORS.get("lr")], copies=10), "call it"),
        (lambda: gp.probe(classifier(), ["lr"], root_seed=None, copies=10), "root_seed"),
        (lambda: gp.estimate(classifier(), "lr", seed="a"), "seed"),
        (lambda: gp.estimate(classifier(), "lr", block=0), "block"),
        (lambda: gp.probe(classifier(), "lr(sigma={'frist': 1, '*': 2})", copies=10), "Did you mean 'first'"),
        (lambda: gp.probe(classifier(), "lr", engine="tile", sigma=None, copies=13), "multiple"),
    ],
)
def test_careless_calls(call, says: str) -> None:
    with pytest.raises(gp.UsageError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numpy_integers_and_equal_numbers_are_welcome() -> None:
    ds = gp.probe(classifier(), ["lr(sigma=1)"], copies=np.int64(12), block=np.int32(4), seeds=np.arange(2))
    assert ds.sizes["seed"] == 2
    with pytest.raises(gp.UsageError, match="given twice"):
        gp.probe(classifier(), ["lr(sigma=1)", "lr(sigma=1.0)"], **SMALL)
    assert gp.probe(classifier(), "hybrid", sigma={"*": 0.01}, **SMALL).sizes["estimator"] == 1


def test_a_grid_for_methods_that_need_one_copy() -> None:
    assert list(gp.probe(classifier(), "bp", copies=20, seeds=2).copies.values) == [10, 20]


def test_engines_agree_and_are_kept(tmp_path) -> None:
    found = {
        engine: gp.probe(classifier(), ["lr", "es"], engine=engine, **SMALL)
        for engine in ("loop", "vmap", "auto")
    }
    for ds in found.values():
        assert np.allclose(ds["dot"], found["loop"]["dot"], rtol=1e-4, atol=1e-6)
    gp.probe(classifier(), ["lr"], copies=500, seeds=2, out=tmp_path / "run")
    from gradprobe.store.info import read_info

    engines = read_info(tmp_path / "run").engines
    assert set(engines) == {"activations layerwise sample | first", "activations layerwise sample | last"}
    gp.probe(classifier(), ["lr"], copies=1000, seeds=2, out=tmp_path / "run")
    assert read_info(tmp_path / "run").engines == engines


def test_best_threads_leaves_the_setting() -> None:
    from gradprobe.probes.threads import best_threads

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert best_threads(classifier()) in (1, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_failing_progress_does_not_leave_the_values_of_before() -> None:
    """What is computed once belongs to one probe, also when that probe ends in an error."""
    problem = classifier()

    class Enough(Exception):
        pass

    def fail(done: int, total: int, label: str) -> None:
        raise Enough

    with pytest.raises(Enough) as caught:
        gp.probe(problem, "lr", copies=20, seeds=1, progress=fail)
    with torch.no_grad():
        for p in problem.module.parameters():
            p.mul_(1.5)
    del caught
    assert problem._cache is None
    again, fresh = (
        gp.probe(p, "lr", copies=20, seeds=1)
        for p in (problem, gp.Problem(problem.module, (problem.inputs, problem.target), problem.loss))
    )
    assert np.array_equal(again["dot"], fresh["dot"])
