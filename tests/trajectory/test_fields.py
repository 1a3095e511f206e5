"""Mean fields against quadrature of scipy, closed forms and samples; zeros that are known; what a path records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import gradprobe as gp
from tests.stochastic import Shaky


def zeros(field, label, boundary=False):
    mine = field.isel(zero=(field.zero_field == label).values & (field.boundary == boundary).values)
    return mine.zero_position.values, mine.stable.values


def cubic(x, y):
    return x**3 - 2 * x * y + y**2 + x


def wave(x, y):
    return torch.sin(2 * x + y) + 0.3 * x * y**2


@pytest.mark.parametrize("sign", [False, True])
def test_integrated_fields_by_dblquad(sign):
    spec, sigma = ("alr" if sign else "lr"), 0.4
    field = gp.field(wave, spec, sigma=sigma, start=(0.1, 0.1), domain=(-2, 2), points=3)
    assert field.how.values.tolist() == ["exact", "integrated"]

    def f(x, y):
        return math.sin(2 * x + y) + 0.3 * x * y * y

    for i, j in ((0, 1),):
        x, y = float(field.x[j]), float(field.y[i])
        for c in range(2):
            total = 0.0
            for s in (1, -1):
                for t in (1, -1):

                    def part(b, a, s=s, t=t, c=c, x=x, y=y):
                        e = (s * a, t * b)
                        score = math.copysign(1, e[c]) if sign else e[c] / sigma
                        rise = f(x + sigma * e[0], y + sigma * e[1]) - f(x, y)
                        return rise * score * math.exp(-(a * a + b * b) / 2) / (2 * math.pi)

                    total += integrate.dblquad(part, 0, 8, 0, 8, epsabs=1e-7)[0]
            assert float(field.vector[1, i, j, c]) == pytest.approx(total, abs=1e-6)


def closed(noise, sign, x, y, sigma):
    """Of the cubic: E[e^2] = 1, E[e^4] = k, E|e| = m, E|e|^3 = t; odd moments vanish."""
    m, t, k = {
        "gaussian": (math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi), 3),
        "laplace": (math.sqrt(0.5), 6 / math.sqrt(8), 6),
        "rademacher": (1, 1, 1),
    }[noise]
    gradient = np.array([3 * x * x - 2 * y + 1, -2 * x + 2 * y])
    if sign:
        return sigma * m * gradient + np.array([sigma**3 * t, 0.0])
    if noise == "laplace":  # the score is sqrt 2 sign(e): E|e| = m = 1/sqrt 2, E sqrt2 |e|^3 = 3
        return gradient + np.array([3 * sigma**2, 0.0])
    return gradient + np.array([sigma**2 * k, 0.0])


@pytest.mark.parametrize("sign", [False, True])
@pytest.mark.parametrize("noise", ["gaussian", "laplace", "rademacher"])
def test_closed_forms_on_a_polynomial(noise, sign):
    spec = f"{'alr' if sign else 'lr'}(noise={noise})"
    field = gp.field(cubic, spec, sigma=0.6, start=(0.1, 0.1), domain=(-2, 2), points=5)
    for i, y in enumerate(field.y.values):
        for j, x in enumerate(field.x.values):
            np.testing.assert_allclose(
                field.vector[1, i, j], closed(noise, sign, x, y, 0.6), rtol=1e-8, atol=1e-8
            )
    assert float(field.error[1].max()) < 1e-7


def test_a_sample_agrees_with_the_integral_and_knows_its_error():
    """Two estimators, 32 numbers each; limits for a false alarm of 1e-6 with Student's 9 degrees of freedom."""
    options = {"sigma": 0.5, "start": (0.1, 0.1), "domain": (-2, 2), "points": 4}
    whole = gp.field(wave, ["lr", "alr"], **options)
    some = gp.field(wave, ["lr", "alr"], copies=8_000, **options)
    z = ((some.vector - whole.vector) / some.error)[1:].values
    assert np.abs(z).max() < stats.t.isf(1e-6 / 2 / z.size, 9)
    assert 0.3 < np.sqrt(np.mean(z**2)) < 2.5
    assert (some.how.values[1:] == "sampled").all()
    assert np.isfinite(gp.field("booth", Shaky(), points=3, copies=40).error.values).all()
    assert np.isfinite(gp.field("booth", "lr(antithetic=True)", points=3, copies=50).vector.values).all()


def test_critical_points_of_himmelblau():
    field = gp.field("himmelblau", "bp", points=3)
    found, stable = zeros(field, "gradient")
    assert len(found) == 9
    x, y = found.T
    xx, yy, xy = 12 * x**2 + 4 * y - 42, 12 * y**2 + 4 * x - 26, 4 * (x + y)
    eigen = np.linalg.eigvalsh(np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2))
    kinds = (eigen > 0).sum(1)
    assert sorted(kinds) == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert (stable == (kinds == 2)).all()
    slope = [4 * x * (x * x + y - 11) + 2 * (x + y * y - 7), 2 * (x * x + y - 11) + 4 * y * (x + y * y - 7)]
    assert np.abs(slope).max() < 1e-6


@pytest.mark.parametrize("name", ["booth", "ill-conditioned"])
def test_a_quadratic_has_one_zero_for_all(name):
    field = gp.field(name, ["lr", "alr"], sigma=0.3, points=3)
    for label in field.field.values:
        found, stable = zeros(field, label)
        np.testing.assert_allclose(found, field.minimum_position.values, atol=1e-6)
        assert stable.all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_zero_on_a_point_of_the_grid_is_found(sign):
    """Without known minima: all of x^2 and y^2's slopes are exactly 0 there."""
    field = gp.field(lambda x, y: sign * (x**2 + y**2), "lr", start=(1.0, 1.0), domain=(-5, 5), points=3)
    for label in ("gradient", "lr"):
        found, stable = zeros(field, label)
        np.testing.assert_allclose(found, [[0, 0]], atol=1e-8)
        assert stable.tolist() == [sign > 0]


EDGES = {
    "plane": (lambda x, y: x + 2 * y, [(-5, -5)]),
    "bowl beyond an edge, on a line of the grid": (lambda x, y: x**2 + (y - 10) ** 2, [(0, 5)]),
    "bowl beyond an edge": (lambda x, y: (x - 0.321) ** 2 + (y - 10) ** 2, [(0.321, 5)]),
    "bowl beyond a corner": (lambda x, y: (x + 9) ** 2 + (y - 10) ** 2, [(-5, 5)]),
    "bowl in line with a corner": (lambda x, y: (x - 5) ** 2 + (y - 10) ** 2, [(5, 5)]),
    "bowl inside": (lambda x, y: (x - 1.3) ** 2 + y**2, []),
    "ridge": (lambda x, y: y - x**2, [(-5, -5), (5, -5)]),
}


@pytest.mark.parametrize("kind", list(EDGES))
def test_stable_points_on_the_edge(kind):
    function, want = EDGES[kind]
    field = gp.field(function, "alr", start=(1.0, 1.0), domain=(-5, 5), points=3)
    for label in ("gradient", "alr"):
        found, stable = zeros(field, label, boundary=True)
        assert sorted(map(tuple, found.round(6).tolist())) == sorted(want)
        assert stable.all()
    for start in field.zero_position.values[field.boundary.values]:
        path = gp.descend(
            function, "bp", start=start, domain=(-5, 5), bounds="project", steps=20, lr=0.01, seeds=1
        )
        np.testing.assert_allclose(path.position.values[0, 0, -1], start, atol=1e-6)


def test_zeros_on_the_edge_itself_beside_nan_and_on_plateaus():
    options = {"start": (1.0, 1.0), "domain": (-5, 5), "points": 3}
    on = gp.field(lambda x, y: (x - 5) ** 2 + (y - 0.123) ** 2, "lr", **options)
    beside = gp.field(lambda x, y: torch.sqrt(x + 4) + (x - 0.3) ** 2 + y**2, "bp", **options)
    for label in ("gradient", "lr"):
        np.testing.assert_allclose(zeros(on, label)[0], [[5, 0.123]], atol=1e-6)
        assert not len(zeros(on, label, boundary=True)[0])
    (found,), (stable,) = zeros(beside, "gradient")
    assert abs(0.5 / math.sqrt(found[0] + 4) + 2 * (found[0] - 0.3)) < 1e-4
    assert stable
    flat = gp.field(lambda x, y: torch.relu(x**2 + y**2 - 1), "bp", **options)
    assert not flat.sizes["zero"]


# --- what a path records


def test_recorded_quantities(tmp_path):
    starts, options = (
        [(-1.0, 0.5), (0.4, -0.7)],
        {"steps": 23, "lr": 1e-3, "seeds": 3, "sigma": 0.1, "copies": 4},
    )
    path = gp.descend("himmelblau", ["bp", "lr", "alr"], start=starts, **options)
    assert path.position.dims == ("estimator", "start", "seed", "step", "coordinate")
    thin = gp.descend("himmelblau", ["bp", "lr", "alr"], start=starts, every=5, **options)
    assert thin.step.values.tolist() == [0, 5, 10, 15, 20, 23]
    for name in (
        "position",
        "gradient",
        "direction",
        "loss",
        "cosine",
        "gain",
        "distance",
        "forwards",
        "lost",
        "diverged",
    ):
        picked = path[name].sel(step=thin.step) if "step" in path[name].dims else path[name]
        np.testing.assert_array_equal(thin[name], picked)
    x, y = np.moveaxis(path.position.values, -1, 0)
    slope = np.stack(
        [4 * x * (x * x + y - 11) + 2 * (x + y * y - 7), 2 * (x * x + y - 11) + 4 * y * (x + y * y - 7)], -1
    )
    np.testing.assert_allclose(path.gradient, slope, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(path.loss, (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2, rtol=1e-10)
    d = path.direction.values
    dot, size, true = (d * slope).sum(-1), np.linalg.norm(d, axis=-1), np.linalg.norm(slope, axis=-1)
    np.testing.assert_allclose(path.cosine, dot / size / true, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.gain, dot / true**2, rtol=1e-9, atol=1e-12)
    away = np.linalg.norm(path.position.values[..., None, :] - path.minimum_position.values, axis=-1).min(-1)
    np.testing.assert_allclose(path.distance, away, rtol=1e-12)
    np.testing.assert_array_equal(path.forwards, np.array([1, 5, 5])[:, None] * np.arange(24))
    single = gp.descend("himmelblau", "lr", start=starts[0], **options)
    assert single.position.dims == ("estimator", "seed", "step", "coordinate")
    grid = gp.descend("booth", "bp", start=3, steps=1, seeds=1)
    assert sorted(map(tuple, grid.start_position.values.round(9))) == sorted(
        (round(a, 9), round(b, 9)) for a in (-20 / 3, 0, 20 / 3) for b in (-20 / 3, 0, 20 / 3)
    )


def test_distance_of_many_walkers_keeps_its_digits():
    starts = [(3 + 1e-9 * k, 0.5) for k in range(1, 40)]
    path = gp.descend("beale", "bp", start=starts, steps=1, lr=1e-9, seeds=1)
    np.testing.assert_allclose(path.distance.values[0, :, 0, 0], 1e-9 * np.arange(1, 40), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_cosine_gain_and_length_at_any_scale(size):
    options = {"start": (0.3, 0.4), "steps": 3, "seeds": 1}
    for shape in ({"step": "normalised", "lr": 1e-3}, {"clip": 0.5 * size, "lr": 1e-3 / size}):
        path = gp.descend(lambda x, y: size * (3 * x + 4 * y), "bp", **options, **shape)
        np.testing.assert_allclose(path.cosine[0, 0, :-1], 1, rtol=1e-12)
        np.testing.assert_allclose(path.gain[0, 0, :-1], 1, rtol=1e-12)
        moved = path.position.values[0, 0, 1] - path.position.values[0, 0, 0]
        length = 1e-3 * (1 if "step" in shape else 0.5)
        np.testing.assert_allclose(moved, [-0.6 * length, -0.8 * length], rtol=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_export_and_back(tmp_path, known):
    from gradprobe.store.export import read_export

    given = "himmelblau" if known else gp.Function("own", lambda x, y: x**2 + y**4, (1.0, 1.0))
    path = gp.descend(given, ["bp", "lr"], start=[(1.0, 1.0), (0.5, 0.2)], steps=9, lr=1e-3, seeds=3)
    back = read_export(gp.export(path, tmp_path / "path.nc"))
    assert back.identical(path)
    assert gp.stats.progress(back).identical(gp.stats.progress(path))
    if known:
        assert gp.stats.success(back).identical(gp.stats.success(path))
        assert gp.stats.basins(back).identical(gp.stats.basins(path))
        field = gp.field("himmelblau", "lr", points=3)
        assert read_export(gp.export(field, tmp_path / "field.nc")).identical(field)
