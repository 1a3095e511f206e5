"""Noise of walkers: whose it is, what it does not depend on; walkers that diverge; nothing left behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe.core.streams import Block, Streams
from gradprobe.estimators.base import Estimator, make
from gradprobe.estimators.perturbation import LR
from gradprobe.problems.landscape import find_function
from gradprobe.trajectory.sources import function_layers
from tests.stochastic import Shaky
from tests.truth.trace import Boom, global_state

KEPT = ("position", "direction", "gradient", "loss", "cosine", "gain", "distance")
SPECS = ["lr", "alr", "lr(antithetic=True)", "lr(centre=mean)", Shaky()]


@dataclass(frozen=True)
class SignedBP(Estimator):
    """As in the README."""

    stochastic = False
    uses_backward = True

    def directions(self, problem, layers, block, streams):
        gradient = make("bp").estimator.directions(problem, layers, block, streams)
        return {name: g.sign() for name, g in gradient.items()}


@dataclass(frozen=True)
class Both(LR):
    """Assigns draws as LR does, and gives directions of its own."""

    def directions(self, problem, layers, block, streams):
        return {name: 2 * g for name, g in super().directions(problem, layers, block, streams).items()}


def same(one, other, names=KEPT):
    return all(np.array_equal(one[n].values, other[n].values, equal_nan=True) for n in names)


@pytest.mark.parametrize("name", ["beale", "ackley", "easom", "mccormick"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_walker_does_not_depend_on_its_company(spec, name):
    function = find_function(name)
    start = np.array(function.start)
    options = {"copies": 6, "root_seed": 4, "lr": 1e-4}
    company = np.stack([start, *(0.9 * start + 0.01 * k for k in range(30))])
    alone = gp.descend(name, [spec], start=start, seeds=[7], steps=9, **options)
    more = gp.descend(name, ["bp", "aes", spec], start=company, seeds=[2, 7, 5], steps=14, **options)
    label = alone.estimator.item()
    mine = more.sel(estimator=[label], seed=[7], step=range(9)).isel(start=0)
    assert same(alone.sel(step=range(9)), mine)


def test_groups_do_not_show(monkeypatch):
    options = {"start": [(-1.0, 0.5), (0.3, 0.3), (1.0, 1.0)], "seeds": 5, "steps": 12, "lr": 1e-4}
    whole = gp.descend(
        "beale",
        ["lr", "bp"],
        lr="tuned",
        rates=[1e-5, 1e-4, 1e-3],
        **{k: v for k, v in options.items() if k != "lr"},
    )
    monkeypatch.setattr("gradprobe.trajectory.descents.NUMBERS", 150)
    parts = gp.descend(
        "beale",
        ["lr", "bp"],
        lr="tuned",
        rates=[1e-5, 1e-4, 1e-3],
        **{k: v for k, v in options.items() if k != "lr"},
    )
    assert same(whole, parts, (*KEPT, "tuning_score", "lost", "lr"))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_another_key_is_other_noise(spec):
    def first(start=(0.5, 0.5), seed=0, root=0, lr=1e-3):
        path = gp.descend(
            "beale", [spec], start=start, seeds=[seed], root_seed=root, steps=2, lr=lr, copies=4
        )
        return path.direction.values[0, 0]

    base = first()
    assert (base[0] == first(lr=1e-2)[0]).all()
    assert (base[0] != base[1]).all(), "each step has its own"
    for other in (first(seed=1), first(root=1), first(start=(0.5, 0.5 + 1e-12))):
        relative = np.abs(other[0] / base[0] - 1)
        assert (relative > 1e-6).all()


def test_steps_have_their_own_noise_within_and_beyond_a_chunk():
    """On a plane a direction is its noise alone: no two steps agree."""
    path = gp.descend(lambda x, y: x + 2 * y, "lr", start=(0.0, 0.0), steps=300, copies=512, seeds=2)
    found = path.direction.values[0, :, :-1].reshape(-1, 2)
    assert len(np.unique(found.round(9), axis=0)) == 600


def test_walkers_share_noise_between_readouts_of_a_draw():
    """One copy on the plane x: LR and ALR differ by |e| / sigma, e of one stream."""
    path = gp.descend(lambda x, y: x, ["lr", "alr"], start=(0.0, 0.0), steps=5, copies=1, seeds=4, sigma=0.5)
    lr, alr = path.direction.values[..., :-1, :]
    np.testing.assert_allclose(lr[..., 0], (alr[..., 0] / 0.5) ** 2, rtol=1e-9)  # e^2 and sigma |e|
    assert (np.sign(lr[..., 1]) == np.sign(alr[..., 1])).all()


def test_tuning_has_noise_of_its_own(monkeypatch):
    seen = []
    true_key = Streams.key

    def key(self, *args):
        seen.append((self.purpose.split()[0], true_key(self, *args)))
        return true_key(self, *args)

    monkeypatch.setattr(Streams, "key", key)
    gp.descend("beale", "lr", lr="tuned", rates=[1e-4, 1e-3], steps=5, seeds=12, tuning_seeds=12)
    keys = {kind: {k for p, k in seen if p == kind} for kind in ("descent", "tuning")}
    assert len(keys["descent"]) == len(keys["tuning"]) == 12
    assert not keys["descent"] & keys["tuning"]


def test_without_noise_all_seeds_are_one():
    path = gp.descend("beale", ["bp", SignedBP(), "lr"], steps=5, seeds=3, lr=1e-4)
    assert (path.position[:2] == path.position[:2, :1]).all()
    assert (path.position[2, 0, 1:] != path.position[2, 1, 1:]).all()
    np.testing.assert_array_equal(path.direction[1, 0, :-1], np.sign(path.gradient[1, 0, :-1]))
    assert (path.forwards[:, -1] == [5, 5, 5 * 17]).all()


@pytest.mark.parametrize("estimator", [Shaky(), Both(), SignedBP()], ids=str)
def test_own_directions_are_used(estimator):
    function = find_function("beale")
    starts = [(0.5, 0.5), (-1.0, 1.0)]
    path = gp.descend("beale", estimator, start=starts, steps=3, seeds=[0, 4], lr=1e-3, copies=4)
    for s, start in enumerate(starts):
        for row, seed in enumerate((0, 4)):
            for k in range(3):
                problem = function.problem(path.position.values[0, s, row, k].tolist())
                streams = Streams(0, seed, f"descent from {list(start)}")
                _, layers = function_layers(function)
                (want,) = estimator.directions(problem, layers, Block(k, 4), streams).values()
                got = path.direction.values[0, s, row, k]
                np.testing.assert_allclose(got, want.numpy()[:, 0], rtol=1e-9)


# --- divergence


def test_divergence_is_the_first_step_that_is_not_finite():
    starts = [(-3.0, 2.0), (3.1, 0.5)]
    options = {"steps": 40, "lr": 0.01, "seeds": 4}
    with np.errstate(all="raise"):
        path = gp.descend("beale", ["bp", Shaky()], start=starts, **options)
        alone = gp.descend("beale", ["bp", Shaky()], start=starts[1], **options)
        far = gp.descend("beale", "lr", lr=1e100, steps=3, seeds=2)
    assert (far.diverged == 1).all()
    gone = path.diverged.values
    assert np.isfinite(gone[:, 0]).all()
    assert np.isnan(gone[:, 1]).all()
    assert same(path.isel(start=1), alone)
    for e in range(2):
        for s in range(4):
            walker = path.isel(estimator=e, start=0, seed=s)
            ok = np.isfinite(walker.loss.values) & np.isfinite(walker.position.values).all(-1)
            first = int(np.flatnonzero(~ok)[0])
            assert first == gone[e, 0, s]
            for name in KEPT:
                assert np.isnan(walker[name].values[first + 1 :]).all()
            assert np.isnan(walker.direction.values[first]).all()
            assert np.isfinite(walker.direction.values[: first - 1]).all()


def roots(x, y):
    return torch.sqrt(x) + (x - 1) ** 2 + y**2


def test_noise_that_leaves_the_function_counts_as_nothing():
    start, sigma = (0.1, 0.5), 0.3
    path = gp.descend(
        roots, ["lr", "lr(antithetic=True)"], start=start, steps=6, sigma=sigma, seeds=5, lr=1e-3
    )
    whole = gp.descend(
        lambda x, y: torch.where(x < 0, torch.inf, roots(x, y)),
        "lr",
        start=start,
        steps=6,
        sigma=sigma,
        seeds=5,
        lr=1e-3,
    )
    assert same(path.isel(estimator=[0]), whole, ("position", "lost"))
    for s in range(5):
        key = Streams(0, s, f"descent from {list(start)}").key("gaussian", "activations", "variables", 0, 0)
        from gradprobe.engine.noise import NOISE
        from gradprobe.engine.tiles import unit_noise

        noise = unit_noise(NOISE.get("gaussian")(), key, (2,), range(96)).double().numpy().reshape(6, 16, 2)
        lost, x = 0, np.array(start)
        for k in range(6):
            shifted = x + sigma * noise[k]
            bad = shifted[:, 0] < 0
            lost += bad.sum()

            def f(p):
                return np.sqrt(p[..., 0]) + (p[..., 0] - 1) ** 2 + p[..., 1] ** 2

            rise = np.where(bad, 0, f(np.abs(shifted)) - f(x))
            x = x - 1e-3 * (rise[:, None] * noise[k] / sigma).mean(0)
        assert lost == path.lost.values[0, s] > 0
        np.testing.assert_allclose(path.position.values[0, s, -1], x, rtol=1e-12)


def test_a_function_is_not_asked_where_a_walker_is_no_more():
    """A table, say, has no entry for NaN."""

    def table(x, y):
        assert bool(x.isfinite())
        assert bool(y.isfinite())
        return x**4 + y**4 if float(x.detach()) < 1e30 else x * torch.nan

    path = gp.descend(
        table,
        ["bp", Shaky(size=0.001), "lr"],
        start=[(2.0, 2.0), (0.1, 0.1)],
        steps=12,
        lr=1.0,
        seeds=2,
        sigma=0.1,
    )
    assert (np.isfinite(path.diverged.values[:2, 0])).all()
    assert np.isnan(path.diverged.values[:, 1]).all()


def test_a_map_without_a_domain_leaves_diverged_walkers_out():
    def steep(p):
        return (p**4).sum(-1)

    gone = gp.descend(
        steep, ["bp", Shaky(size=0.001)], start=[(1.0, 2.0), (0.01, 0.02)], lr=1.0, steps=100, seeds=3
    )
    assert np.isfinite(gone.diverged.values[:, 0]).all()
    assert np.isfinite(gone.surface.values).all()
    assert np.abs(gone.x.values).max() < 3
    only = gp.descend(steep, "bp", start=(1.0, 2.0), lr=10.0, steps=100, seeds=1)
    assert np.isfinite(only.surface.values).all()


# --- no trace


def test_nothing_is_left_behind():
    def noisy(x, y):
        torch.rand(1)
        np.random.rand()  # noqa: NPY002 - a user may
        return x**2 + y**2

    calls = 0

    def failing(x, y):
        nonlocal calls
        calls += 1
        torch.rand(1)
        if calls > 400:
            raise Boom
        return x**2 + y**2 if x < 100 else x  # point by point: an if on a value

    before = global_state()
    gp.descend("beale", ["bp", "lr", Shaky()], steps=3, seeds=2, lr="tuned", rates=[1e-4, 1e-3])
    assert global_state() == before
    gp.descend(noisy, ["bp", "lr"], start=(1.0, 1.0), steps=3, seeds=2)
    assert global_state() == before
    gp.field(noisy, ["lr", "alr"], start=(1.0, 1.0), domain=(-2, 2), points=3, copies=20)
    assert global_state() == before
    with pytest.raises(Boom):
        gp.descend(failing, ["bp", "lr"], start=(1.0, 1.0), steps=50, seeds=2, lr=0.1)
    assert global_state() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_torch_change_nothing(mode):
    want = gp.descend("beale", ["bp", "lr"], steps=3, seeds=2, optimizer="adam")
    with mode():
        got = gp.descend("beale", ["bp", "lr"], steps=3, seeds=2, optimizer="adam")
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        other = gp.descend("beale", ["bp", "lr"], steps=3, seeds=2, optimizer="adam")
    finally:
        torch.set_default_dtype(old)
    assert same(want, got)
    assert same(want, other)
