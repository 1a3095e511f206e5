"""Registered functions against transcriptions, finite differences and a minimiser; a user's own functions."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import gradprobe as gp
from gradprobe import UsageError
from gradprobe.core.streams import Streams
from gradprobe.problems import FUNCTIONS
from gradprobe.problems.functions import register
from gradprobe.problems.landscape import Function, find_function

NAMES = FUNCTIONS.names()
SMOOTH = [name for name in NAMES if name not in ("ackley", "steps")]
ANY_NUMBER = ["rosenbrock", "ackley", "rastrigin", "styblinski-tang", "steps"]
LISTED = [name for name in SMOOTH if "local_minima" in FUNCTIONS.entry(name).meta]
"""Functions whose minima inside the domain are all known."""

EPS = float(np.finfo(float).eps)
Number = torch.Tensor


def written_again(name: str, x: Sequence[float]) -> float:
    """Each function as the literature writes it: scalars, loops, no torch."""
    n, a, b = len(x), x[0], x[1]
    cos, sin, exp, sqrt, pi = math.cos, math.sin, math.exp, math.sqrt, math.pi
    if name == "beale":
        return sum((c - a * (1 - b**i)) ** 2 for i, c in ((1, 1.5), (2, 2.25), (3, 2.625)))
    if name == "rosenbrock":
        return sum(100 * (x[i + 1] - x[i] * x[i]) ** 2 + (x[i] - 1) ** 2 for i in range(n - 1))
    if name == "himmelblau":
        return (a * a + b - 11) ** 2 + (a + b * b - 7) ** 2
    if name == "booth":
        return (a + 2 * b - 7) ** 2 + (2 * a + b - 5) ** 2
    if name == "ackley":
        mean_square = sum(t * t for t in x) / n
        mean_wave = sum(cos(2 * pi * t) for t in x) / n
        return -20 * exp(-0.2 * sqrt(mean_square)) - exp(mean_wave) + 20 + exp(1)
    if name == "rastrigin":
        return 10 * n + sum(t * t - 10 * cos(2 * pi * t) for t in x)
    if name == "goldstein-price":
        s, t = a + b + 1, 2 * a - 3 * b
        return (1 + s * s * (19 - 14 * a + 3 * a * a - 14 * b + 6 * a * b + 3 * b * b)) * (
            30 + t * t * (18 - 32 * a + 12 * a * a + 48 * b - 36 * a * b + 27 * b * b)
        )
    if name == "styblinski-tang":
        return 0.5 * sum(t**4 - 16 * t**2 + 5 * t for t in x)
    if name == "mccormick":
        return sin(a + b) + (a - b) ** 2 - 1.5 * a + 2.5 * b + 1
    if name == "six-hump-camel":
        return 4 * a**2 - 2.1 * a**4 + a**6 / 3 + a * b - 4 * b**2 + 4 * b**4
    if name == "easom":
        return -cos(a) * cos(b) * exp(-((a - pi) ** 2 + (b - pi) ** 2))
    if name == "ill-conditioned":
        angle = math.atan2(3, 4)
        along, across = cos(angle) * a + sin(angle) * b, cos(angle) * b - sin(angle) * a
        return 0.5 * along**2 + 500 * across**2
    if name == "steps":
        return float(sum(math.floor(t + 0.5) ** 2 for t in x))
    raise KeyError(f"{name} has no transcription here")


def tensor(points: object) -> torch.Tensor:
    return torch.as_tensor(np.asarray(points, dtype=np.float64))


def random_points(function: Function, count: int, seed: int = 0) -> torch.Tensor:
    low, high = tensor(function.domain).T
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, function.dims, generator=generator, dtype=torch.float64)


def hessian(function: Function, point: np.ndarray) -> np.ndarray:
    """Central differences of the gradient."""
    h = 1e-5
    shifts = h * np.eye(len(point))
    rows = function.gradient(tensor([point + shifts, point - shifts])).numpy()
    found = (rows[0] - rows[1]) / (2 * h)
    return (found + found.T) / 2


@pytest.mark.parametrize("name", NAMES)
def test_facts(name: str) -> None:
    f = find_function(name)
    low, high = np.array(f.domain).T
    for point in (f.start, *f.minima, *f.local_minima):
        assert ((np.array(point) > low) & (np.array(point) < high)).all()
    assert f.minima
    assert f.value is not None
    assert f.source
    assert np.abs(f.values(tensor(f.minima)).numpy() - f.value).max() < 1e-12
    start = tensor(f.start)
    assert f.values(start) > f.value + 1e-3
    assert f.gradient(start).isfinite().all()


@pytest.mark.parametrize("name", SMOOTH)
def test_every_listed_minimum_is_one(name: str) -> None:
    f = find_function(name)
    for point in (*f.minima, *f.local_minima):
        assert f.gradient(tensor(point)).norm() < 1e-6
        assert np.linalg.eigvalsh(hessian(f, np.array(point))).min() > 1e-4
    assert f.gradient(tensor(f.start)).norm() > 1e-3
    for point in f.local_minima:
        assert f.values(tensor(point)) > f.value + 1e-3


def test_ackleys_minimum_is_a_cusp() -> None:
    f = find_function("ackley")
    assert f.gradient(tensor([0.0, 0.0])).tolist() == [0, 0]  # the subgradient, not NaN
    # the slope at distance r is 20 * 0.2 / sqrt(2) exp(-0.2 r / sqrt(2)), and that of the waves
    slopes = f.gradient(tensor([[1e-8, 0.0], [-1e-8, 0.0]]))[:, 0]
    assert slopes.tolist() == pytest.approx([4 / math.sqrt(2), -4 / math.sqrt(2)], rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_values_equal_the_transcription(name: str) -> None:
    f = find_function(name)
    points = random_points(f, 200)
    expected = [written_again(name, p) for p in points.tolist()]
    # terms of goldstein-price cancel from 10^6 of its largest value down
    scale = max(abs(v) for v in expected)
    assert np.allclose(f.values(points).numpy(), expected, rtol=1e-11, atol=1e-13 * scale)


@pytest.mark.parametrize("dims", [2, 3, 7])
@pytest.mark.parametrize("name", ANY_NUMBER)
def test_any_number_of_variables(name: str, dims: int) -> None:
    points = 4 * torch.rand(6, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 2
    f = Function(name, FUNCTIONS.get(name), (0.3,) * dims, batched=True)
    expected = [written_again(name, p) for p in points.tolist()]
    assert np.allclose(f.values(points).numpy(), expected, rtol=1e-12, atol=1e-12)
    assert f.gradient(points).shape == (6, dims)
    known = find_function(name)
    minimum = tensor([[known.minima[0][0]] * dims])
    depth = known.value * dims / 2 if name == "styblinski-tang" else known.value
    assert f.values(minimum).item() == pytest.approx(depth, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences(name: str) -> None:
    """Error of a central difference: h^2 f'''/6, seen by doubling h, and eps |f| / h from rounding."""
    f = find_function(name)
    points = random_points(f, 50)
    found = f.gradient(points)
    h = EPS ** (1 / 3)
    for i in range(f.dims):
        step = h * torch.eye(f.dims, dtype=torch.float64)[i]

        def difference(k: int, step: torch.Tensor = step) -> torch.Tensor:
            return (f.values(points + k * step) - f.values(points - k * step)) / (2 * k * h)

        truncation = (difference(2) - difference(1)).abs() / 3
        rounding = 100 * EPS * (1 + f.values(points).abs()) / h
        assert ((found[:, i] - difference(1)).abs() <= 2 * truncation + rounding).all()


def minima_found(f: Function, side: int) -> tuple[float, np.ndarray]:
    """Lowest value, and distinct minima inside the domain, of bounded descents from a grid."""
    box = np.array(f.domain)

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = tensor(x)
        return f.values(point).item(), f.gradient(point).numpy()

    # off the axes of symmetry, where a descent would stop at saddles
    axes = [np.linspace(low, high, side) + 0.01 * (high - low) / side for low, high in box]
    lowest, found = math.inf, []
    for x0 in np.stack(np.meshgrid(*axes), -1).reshape(-1, f.dims):
        done = minimize(
            both, x0.clip(*box.T), jac=True, method="L-BFGS-B", bounds=box, options={"ftol": 0, "gtol": 1e-10}
        )
        lowest = min(lowest, done.fun)
        if (np.abs(done.x[:, None] - box) < 1e-6).any():
            continue
        curvature = hessian(f, done.x)
        # a plain is flat too: a minimum is where Newton's step is nothing
        if np.linalg.eigvalsh(curvature)[0] > 0 and np.abs(np.linalg.solve(curvature, done.jac)).max() < 1e-6:
            found.append(done.x)
    distinct: list[np.ndarray] = []
    for x in found:
        if all(np.abs(x - y).max() > 1e-3 for y in distinct):
            distinct.append(x)
    return lowest, np.array(distinct).reshape(-1, f.dims)


@pytest.mark.parametrize("name", [*SMOOTH, "ackley"])
def test_minima_are_all_that_a_minimiser_finds(name: str) -> None:
    f = find_function(name)
    lowest, found = minima_found(f, 12)
    assert lowest == pytest.approx(f.value, abs=1e-7 if name == "ackley" else 1e-9)
    assert lowest > f.value - 1e-9
    if name in LISTED:
        known = np.array([*f.minima, *f.local_minima])
        distance = np.abs(found[:, None] - known).max(-1)
        assert distance.min(1).max() < 1e-5, "found one that is not listed"
        assert distance.min(0).max() < 1e-5, "did not find one that is listed"
    elif name != "ackley":
        assert len(found) > 50


def test_beales_start_lies_in_the_valley_without_end() -> None:
    f = find_function("beale")
    limit = min((1.5 + t) ** 2 + (2.25 + 2 * t) ** 2 + (2.625 + 3 * t) ** 2 for t in np.linspace(-2, 0, 2001))
    assert limit == pytest.approx(0.4520, abs=1e-4)
    far = f.values(tensor([-1e6, 1 + 13.875 / 14 * 1e-6]))
    assert far.item() == pytest.approx(limit, abs=1e-4)


def test_a_staircase_has_no_gradient_and_no_value_below_its_plateau() -> None:
    f = find_function("steps")
    points = random_points(f, 2000)
    assert (f.gradient(points) == 0).all()
    assert f.values(points).min() == 0
    assert (f.values(tensor([[-0.5, 0.49], [0.0, 0.2]])) == 0).all()
    assert f.values(tensor([0.5, 0.0])) == 1
    problem = f.problem()
    assert problem.clean_losses().tolist() == [13]  # (-3.3, 2.2) lies on the step (-3, 2)
    assert (gp.estimate(problem, "bp")["variables.weight"] == 0).all()
    wide = gp.estimate(problem, "es", copies=400, sigma=1.0)["variables.weight"]
    assert wide[0] < 0 < wide[1]  # down is towards the centre
    assert (gp.estimate(problem, "es", copies=50, sigma=0.01)["variables.weight"] == 0).all()


def counted(function: Callable[..., Number]) -> tuple[Callable[..., Number], list[int]]:
    calls = [0]

    def f(p: Number) -> Number:
        calls[0] += 1
        return function(p)

    return f, calls


@pytest.mark.parametrize("name", NAMES)
def test_registered_functions_take_all_points_at_once(name: str) -> None:
    known = find_function(name)
    points = random_points(known, 15).view(5, 3, 2)
    each = torch.stack([known.values(p) for p in points.view(15, 2)]).view(5, 3)
    assert known.values(points).shape == (5, 3)
    assert torch.allclose(known.values(points), each, rtol=1e-13, atol=1e-13)
    assert known.values(points[:0]).shape == (0, 3)
    function, calls = counted(known.function)
    f = replace(known, function=function)
    f.values(points)
    calls[0] = 0
    assert torch.equal(f.values(points), known.values(points))
    assert calls == [1]


def bowl(p: Number) -> Number:
    return p[0] ** 2 + 3 * p[1] ** 2


def branching(p: Number) -> Number:
    if p[0] > 0:
        return p[0] ** 2 + 3 * p[1] ** 2
    return 2 * p[0] ** 2 + 3 * p[1] ** 2


def in_place(x: Number, y: Number) -> Number:
    second = 3 * y**2  # its backward pass needs y, which a change of x must leave alone
    x *= -1
    return x**2 + second


def in_place_point(p: Number) -> Number:
    p *= torch.tensor([1.0, math.sqrt(3)], dtype=torch.float64)
    return (p**2).sum()


WAYS = {
    "of a point": bowl,
    "of coordinates": lambda x, y: x**2 + 3 * y**2,
    "of any coordinates": lambda *xs: xs[0] ** 2 + 3 * xs[1] ** 2,
    "of a point, with an option": lambda p, factor=3: p[0] ** 2 + factor * p[1] ** 2,
    "of coordinates, with an option": lambda x, y, factor=3: x**2 + factor * y**2,
    "of a point that may be missing": lambda p=None: p[0] ** 2 + 3 * p[1] ** 2,
    "over the last axis": lambda p: (p**2 * torch.tensor([1.0, 3.0])).sum(-1),
    "over all axes": lambda p: (p**2 * torch.tensor([1.0, 3.0])).sum(),
    "in place, of coordinates": in_place,
    "in place, of a point": in_place_point,
    "one axis too many": lambda p: (p[0] ** 2 + 3 * p[1] ** 2)[None, None],
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_writing_a_function(way: str) -> None:
    f = find_function(WAYS[way], start=(1.0, 2.0), domain=(-3, 3))
    points = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = points.clone()
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert torch.allclose(f.values(points), (points**2 * weights).sum(-1), rtol=1e-12)
    assert torch.allclose(f.gradient(points), 2 * points * weights, rtol=1e-12)
    assert torch.equal(points, before)
    assert not points.requires_grad
    assert f.problem((0.5, -1.0)).clean_losses().tolist() == pytest.approx([3.25], rel=1e-14)


def test_a_function_without_branches_is_not_looped() -> None:
    function, calls = counted(bowl)
    f = find_function(function, start=(1.0, 2.0))
    points = torch.ones(100, 2, dtype=torch.float64)
    f.values(points)
    calls[0] = 0
    f.values(points)
    assert calls == [1]


def test_branches_on_values_are_taken_point_by_point() -> None:
    function, calls = counted(branching)
    f = find_function(function, start=(1.0, 2.0))  # all points near the start take one branch
    points = tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert f.values(points).tolist() == [1, 2]
    assert f.gradient(points).tolist() == [[2, 0], [-4, 0]]
    calls[0] = 0
    f.values(points)
    assert calls == [2]


def test_a_branch_on_all_points_at_once_is_each_points_own() -> None:
    def clipped(p: Number) -> Number:
        return p.sum(-1) * 0 if p.norm() > 5 else (p**2).sum(-1)

    f = find_function(clipped, start=(0.1, 0.1))
    assert f.values(tensor([[1.0, 1.0], [10.0, 10.0]])).tolist() == [2, 0]
    # without an if, and as it would be found only far from the start
    g = find_function(lambda p: (p**2).sum(-1) + torch.relu(p.max() - 100), start=(0.1, 0.1))
    assert g.values(tensor([[1.0, 1.0], [0.0, 200.0]])).tolist() == [2, 40100]


def test_one_and_three_variables() -> None:
    one = find_function(lambda x: (x - 1) ** 2, start=(3.0,))
    assert one.values(tensor([[0.0], [3.0]])).tolist() == [1, 4]
    assert gp.estimate(one.problem(), "bp")["variables.weight"].tolist() == [[4]]
    three = find_function(lambda x, y, z: x * y * z, start=(1, 2, 3), domain=[(0, 1), (0, 2), (0, 3)])
    assert three.gradient(tensor(three.start)).tolist() == [6, 3, 2]
    assert three.domain == ((0.0, 1.0), (0.0, 2.0), (0.0, 3.0))
    assert gp.estimate(three.problem(), "bp")["variables.weight"].tolist() == [[6], [3], [2]]
    assert find_function(FUNCTIONS.get("rosenbrock"), start=(0, 0, 0, 0)).values(tensor([1.0] * 4)) == 0


def test_a_constant_has_gradient_zero() -> None:
    f = find_function(lambda p: torch.tensor(2.0), start=(1.0, 2.0))
    assert f.values(torch.zeros(3, 2, dtype=torch.float64)).tolist() == [2, 2, 2]
    assert f.gradient(torch.zeros(3, 2, dtype=torch.float64)).tolist() == [[0, 0]] * 3


def test_a_function_of_ones_own_by_name() -> None:
    @register("tilted bowl", summary="for this test", start=(1.0, 2.0), domain=(-1, 3))
    def tilted(p: Number) -> Number:
        return p[0] ** 2 + 3 * p[1] ** 2 + p[0]  # not made for many points; that is found out

    f = find_function("tilted bowl")
    points = torch.ones(2, 2, dtype=torch.float64)
    assert f.values(points).tolist() == [5, 5]
    assert f.domain == ((-1.0, 3.0), (-1.0, 3.0))


def test_what_is_known_can_be_replaced() -> None:
    f = find_function("beale", start=(1, 1), domain=(-1, 4), minima=[(3, 0.5)])
    assert f.start == (1.0, 1.0)
    assert f.domain == ((-1.0, 4.0), (-1.0, 4.0))
    assert f.value == 0.0
    again = find_function(f, start=(0, 0))
    assert (again.start, again.domain, again.batched) == ((0.0, 0.0), f.domain, True)
    assert find_function("beale") == find_function(find_function("beale"))
    assert hash(f) != hash(again)


@pytest.mark.parametrize("name", NAMES)
def test_the_problem_is_the_function(name: str) -> None:
    f = find_function(name)
    problem = f.problem()
    assert problem.name == name
    assert problem.loss_per == "sample"
    assert torch.equal(problem.clean_losses(), f.values(tensor([f.start])))
    found = gp.estimate(problem, "bp")
    assert list(found) == ["variables.weight"]
    assert torch.equal(found["variables.weight"][:, 0], f.gradient(tensor(f.start)))


OWN = {"bowl": bowl, "branching": branching, "coordinates": WAYS["of coordinates"]}


@pytest.mark.parametrize("given", ["beale", "bowl", "branching", "coordinates"])
@pytest.mark.parametrize("estimator", ["lr", "alr", "es", "aes", "hybrid", "a-hybrid", "lr(antithetic=True)"])
def test_estimators_run(estimator: str, given: str) -> None:
    f = find_function(OWN.get(given, given), start=(1.0, 2.0))
    found = gp.estimate(f.problem(), estimator, copies=20, sigma=0.01)["variables.weight"]
    assert found.shape == (2, 1)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    assert found.any()


@pytest.mark.parametrize(("activations", "weights"), [("lr", "es"), ("alr", "aes")])
def test_noise_on_the_output_is_noise_on_the_variables(
    activations: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = find_function("beale").problem()
    options = {"copies": 40, "sigma": 0.1, "seed": 3}
    own = gp.estimate(problem, activations, **options)["variables.weight"]
    other = gp.estimate(problem, weights, **options)["variables.weight"]
    assert not torch.allclose(own, other)  # each has noise of its own
    key = Streams.key
    monkeypatch.setattr(
        Streams, "key", lambda self, family, where, *rest: key(self, family, "activations", *rest)
    )
    same = gp.estimate(problem, weights, **options)["variables.weight"]
    assert torch.allclose(own, same, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["lr", "es"])
def test_pairs_estimate_the_gradient_of_a_quadratic(estimator: str) -> None:
    """Fixed n, one look: a pair gives (g . eps) eps, of mean g and variance |g|^2 + g_i^2 (no bias: a quadratic).

    Two components and two estimators at z = 4.5: false alarms in 3 of 100,000 changes of the noise.
    """
    f = find_function("booth")
    g = f.gradient(tensor(f.start))
    copies = 4000
    found = gp.estimate(f.problem(), estimator, copies=copies, sigma=0.5, antithetic=True)
    z = (found["variables.weight"][:, 0] - g) / ((g @ g + g**2) / (copies / 2)).sqrt()
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize("given", [*NAMES, "bowl", "branching"])
def test_copies(given: str, again: Callable) -> None:
    f = find_function({"bowl": bowl, "branching": branching}.get(given, given), start=(0.5, 1.5))
    problem = f.problem()
    points = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = again(f)
    assert other == f
    assert torch.equal(other.values(points), f.values(points))
    twin = again(problem)
    assert torch.equal(twin.clean_losses(), problem.clean_losses())
    assert twin.fingerprints() == problem.fingerprints()
    a, b = (gp.estimate(p, "lr", copies=10)["variables.weight"] for p in (problem, twin))
    assert torch.equal(a, b)


def test_a_function_of_the_moment_is_copied() -> None:
    f = find_function(lambda p: p.sum(), start=(1.0,))
    assert copy.deepcopy(f.problem()).clean_losses().tolist() == [1]


def raising(p: Number) -> Number:
    raise RuntimeError("out of luck")


TWO = (1.0, 2.0)


def values_of(function: Callable, start: Sequence[float] = TWO) -> torch.Tensor:
    return find_function(function, start=start).values(torch.zeros(1, len(start), dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: find_function("beal"), "unknown function 'beal'. Did you mean 'beale'"),
        (lambda: find_function("beale", start=(1, 2, 3)), "start has 3 coordinates, and the function has 2"),
        (lambda: find_function("beale", start=(1, float("nan"))), "start must be finite numbers"),
        (lambda: find_function("beale", start=()), "start must be finite numbers"),
        (lambda: find_function("beale", start=3), "start must be numbers such as"),
        (lambda: find_function("beale", start="ab"), "start must be numbers such as"),
        (lambda: find_function(bowl, start=[[1, 2]]), "start must be numbers such as"),
        (lambda: find_function("beale", domain=(4, -4)), "domain must give a low and a high end"),
        (lambda: find_function("beale", domain=[(0, 1)] * 3), "each of the 2 variables"),
        (lambda: find_function("beale", domain="wide"), "domain must give"),
        (lambda: find_function("beale", domain=(0, math.inf)), "domain must give"),
        (lambda: find_function("beale", minima=[(1, 2, 3)]), "minima has 3 coordinates"),
        (lambda: find_function(bowl), "needs start="),
        (lambda: find_function(nn.Linear(2, 1), start=TWO), "not a Linear"),
        (lambda: find_function(nn.Linear, start=TWO), "the class Linear"),
        (lambda: find_function(None), "not a NoneType"),
        (lambda: values_of(lambda p: 1.0), r"returns a float; it must return a tensor \(use torch.sin"),
        (lambda: values_of(lambda p: math.sin(p[0])), "returns a float"),
        (lambda: values_of(lambda p: None), "returns a NoneType"),
        (lambda: values_of(lambda p: p**2), r"returns shape \[2\] for one point of 2 coordinates"),
        (lambda: values_of(raising), "fails at .*out of luck"),
        (lambda: values_of(lambda x, y, z: x), "takes 3 arguments and the start has 2 coordinates"),
        (lambda: values_of(lambda x, y: x, (1.0,)), "takes 2 arguments and the start has 1 coordinates"),
        (lambda: values_of(lambda x, y: x, (1.0, 2.0, 3.0)), "takes 2 arguments"),
        (lambda: values_of(lambda: 1.0), "fails at .*argument"),
        (lambda: find_function("beale").values(torch.zeros(4, 3)), r"points have shape \[4, 3\]"),
        (lambda: find_function("beale").problem((1, 2, 3)), "at has 3 coordinates"),
        (lambda: find_function("beale").problem((1, math.inf)), "at must be finite"),
        (lambda: find_function(lambda p: p.log().sum(), start=(-1, 1)).problem(), r"is nan at \(-1.0, 1.0\)"),
    ],
)
def test_bad_input_is_one_sentence(make: Callable, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: math.sin(x) + y**2,
        lambda x, y: x.item() ** 2 + y**2,
        lambda x, y: x.detach() ** 2 + y**2,
        lambda p: torch.tensor(float((p.detach().numpy() ** 2).sum())),
        torch.no_grad()(lambda x, y: x**2 + y**2),
    ],
    ids=["math", "item", "detach", "numpy", "no_grad"],
)
def test_gradients_that_do_not_pass_are_noticed(function: Callable) -> None:
    f = find_function(function, start=(1.0, 2.0))
    assert not f.differentiable
    assert torch.isnan(f.gradient(tensor([[1.0, 2.0]]))).all()
    with pytest.raises(UsageError, match="gradients do not pass"):
        gp.descend(function, ["bp", "lr"], start=(1.0, 2.0), steps=2, lr=0.1, seeds=2)
    path = gp.descend(function, "lr", start=(1.0, 2.0), steps=2, lr=0.1, seeds=2)
    assert bool(path["loss"].notnull().all())
    assert bool(path["cosine"].isnull().all())


@pytest.mark.parametrize(
    "function",
    [
        *(find_function(name).function for name in NAMES),
        lambda p: p.abs().sum(),
        lambda p: torch.floor(3 * p).sum() + (p**2).sum(),
        lambda p: torch.relu(p).sum(),
        lambda p: 0.0 * p.sum(),
    ],
    ids=[*NAMES, "abs", "floor", "relu", "constant"],
)
def test_kinks_jumps_and_plateaus_are_no_fault(function: Callable) -> None:
    for start in ((0.3, -0.7), (0.0, 0.0), (1.0, 1.0)):
        assert find_function(function, start=start).differentiable


def test_dimensions_come_from_start_or_domain() -> None:
    assert find_function("rosenbrock", start=(0.0, 0.0, 0.0)).minima == ((1.0, 1.0, 1.0),)
    four = find_function("styblinski-tang", start=(0.0,) * 4)
    assert four.domain == ((-5.0, 5.0),) * 4
    assert four.value == pytest.approx(2 * find_function("styblinski-tang").value)
    assert find_function(lambda x, y: x + y, domain=[(0, 2), (2, 6)]).start == (1.0, 4.0)
    with pytest.raises(UsageError, match="start has 3 coordinates, and the function has 2"):
        find_function("beale", start=(1.0, 2.0, 3.0))
