"""Noise that looks at the shapes of sites: which numbers, how distributed, and what becomes of the estimates.

Every statistical test has a fixed n, one look and a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import qmc
from torch import nn

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import make_noise
from gradprobe.engine.noise import Wanted, make_family
from gradprobe.engine.noise.sobol import MOST, directions, normals, points, scrambled
from gradprobe.engine.parts import Part
from gradprobe.estimators.base import make
from gradprobe.problems.landscape import find_function
from gradprobe.problems.problem import Problem
from tests.problems_tiny import classifier
from tests.truth import naive_noise
from tests.truth.checks import (
    SEED,
    STRUCTURED,
    MeanTest,
    check_chain,
    check_draw,
    collect,
    known,
    layers_of,
    normal_quantile,
)

ALARM = 1e-6
FAMILIES = [*STRUCTURED, "low-rank(rank=3)"]
PLACES = [
    (noise, where, injection, share)
    for noise in FAMILIES
    for where in make_family(noise).where
    for injection, share in (("layerwise", "sample"), ("joint", "batch"), ("joint", "sample"))
]
EVERY_PLACE = pytest.mark.parametrize(("noise", "where", "injection", "share"), PLACES)


# --- which numbers


@EVERY_PLACE
def test_parts_of_a_block_and_several_blocks_are_bitwise_the_same(noise, where, injection, share):
    problem, layers = known("cnn")
    draw = Draw(where, injection, noise, share=share)
    one, other = (make_noise(problem, draw, layers, Block(k, 7), SEED) for k in (4, 5))
    parts = [Part(5, range(k, k + 1)) for k in (3, 0)] + [Part(4, range(2, 7)), Part(5, range(7))]
    found = make_noise(problem, draw, layers, parts, SEED)
    for site, eps in found.items():
        assert torch.equal(eps, torch.cat([other[site][3:4], other[site][:1], one[site][2:], other[site]]))


@EVERY_PLACE
def test_antithetic_halves_cancel_and_sigma_does_not_enter(noise, where, injection, share):
    problem, layers = known("mlp")
    draw = Draw(where, injection, noise, True, share, 0.1)
    paired = make_noise(problem, draw, layers, Block(1, 6), SEED)
    louder = make_noise(problem, dataclasses.replace(draw, sigma=10.0), layers, Block(1, 6), SEED)
    plain = make_noise(problem, dataclasses.replace(draw, antithetic=False), layers, Block(1, 3), SEED)
    for site, eps in paired.items():
        assert torch.equal(eps, torch.cat([plain[site], -plain[site]]))
        assert torch.equal(eps, louder[site])


@EVERY_PLACE
def test_every_part_of_the_key_matters(noise, where, injection, share):
    problem, layers = known("mlp")
    draw = Draw(where, injection, noise, share=share)
    streams = [SEED, Streams(1, 5), Streams(SEED.root, 6), Streams(SEED.root, 5, "smoothed")]
    found = [make_noise(problem, draw, layers, Block(0, 3), each) for each in streams]
    found.append(make_noise(problem, draw, layers, Block(1, 3), SEED))
    numbers = [set(torch.cat([eps.flatten() for eps in each.values()]).tolist()) for each in found]
    for i, one in enumerate(numbers):
        assert all(not one & other for other in numbers[:i])
    assert len(numbers[0]) == sum(eps.numel() for eps in found[0].values())  # no number comes twice


@pytest.mark.parametrize("name", ["cnn", "lstm"])
@EVERY_PLACE
def test_directions_by_every_engine_are_those_of_a_naive_loop(name, noise, where, injection, share):
    """With noise written down once more in :mod:`tests.truth.naive_noise`, to the rounding of float32."""
    problem, layers = known(name)
    draw = Draw(where, injection, noise, share == "batch", share, 0.3)
    assert check_draw(problem, draw, layers, rtol=1e-5) >= 4


# --- how they are distributed


def first_copies(noise: str, blocks: int, copies: int = 1) -> np.ndarray:
    """Noise of the first copies of many blocks on a weight ``[4, 3]`` and a bias: ``[blocks, copies, 16]``."""
    problem, layers = known("mlp")
    draw = Draw("weights", noise=noise, share="batch")
    found = make_noise(problem, draw, layers[:1], [Part(k, range(copies)) for k in range(blocks)], SEED)
    flat = torch.cat([eps.flatten(1) for eps in found.values()], 1)
    return flat.view(blocks, copies, -1).double().numpy()


@pytest.mark.parametrize("noise", FAMILIES)
def test_entries_have_mean_0_variance_1_and_no_correlation(noise):
    """Of one copy over 8,000 blocks; the limits are Bonferroni's over all entries and pairs."""
    x = first_copies(noise, 8_000)[:, 0]
    size = x.shape[1]
    limit = normal_quantile(ALARM / 4 / size**2) / math.sqrt(len(x))
    assert (np.abs(x.mean(0)) < limit * x.std(0)).all()
    products = x[:, :, None] * x[:, None, :] - np.eye(size)
    assert (np.abs(products.mean(0)) < limit * products.std(0)).all()
    assert limit * products.std(0).max() < 0.3  # what is seen
    later = x[1:] * x[:-1]  # the next block
    assert (np.abs(later.mean(0)) < limit * later.std(0) * 1.001).all()


def test_a_copy_of_sobol_noise_is_normal_whatever_its_place_in_the_block():
    """Kolmogorov and Smirnov for 8 copies of 4 coordinates over 5,000 blocks; sees 40 % in sigma."""
    x = first_copies("sobol", 5_000, 8)[:, :, :4].reshape(5_000, 32)
    for column in x.T:
        assert stats.kstest(column, stats.norm.cdf).pvalue > ALARM / 32
        assert stats.kstest(1.4 * column, stats.norm.cdf).pvalue < ALARM / 32


def test_low_rank_entries_have_the_fourth_moment_of_a_sum_of_products():
    """3 + 6/r for a matrix (each at 1e-6 over 500,000 copies); 3 for a bias, which is normal."""
    for rank in (1, 2, 8):
        family = f"low-rank(rank={rank})"
        problem, layers = known("mlp")
        noise = make_noise(
            problem, Draw("weights", noise=family, share="batch"), layers[:1], Block(0, 200_000), SEED
        )
        for number, expected in ((0, 3 + 6 / rank), (1, 3.0)):
            fourth = noise[layers[0].name, number].double().flatten(1)[:, 0] ** 4
            error = float(fourth.std()) / math.sqrt(len(fourth))
            assert abs(float(fourth.mean()) - expected) < normal_quantile(ALARM / 12) * error


# --- low rank


@pytest.mark.parametrize("rank", [1, 2, 16])
def test_second_moment_of_low_rank_directions_in_closed_form(rank):
    """E |<G, E> E|^2 = |G|^2 (m n + 2 + 2 (m + n + 1)/r) by Isserlis' theorem; a Gaussian's for r -> inf."""
    m, n, copies = 3, 4, 400_000
    slope = torch.linspace(-1, 2, m * n, dtype=torch.float64).view(m, n)
    key = SEED.key("any", "weights", "layer", 0, rank)
    family = make_family(f"low-rank(rank={rank})")
    wanted = Wanted({("layer", 0): (m, n)}, 0, range(copies), lambda *_: key, torch.device("cpu"))
    noise = family.noise(wanted)["layer", 0].double()
    size = ((noise * slope).sum((1, 2)) ** 2) * (noise**2).sum((1, 2)) / (slope**2).sum()
    expected = m * n + 2 + 2 * (m + n + 1) / rank
    error = float(size.std()) / math.sqrt(copies)
    assert abs(float(size.mean()) - expected) < normal_quantile(ALARM / 6) * error
    assert 2 * normal_quantile(ALARM / 6) * error < 2 * (m + n + 1) / rank  # the term is seen


# --- sobol


def test_unscrambled_points_are_scipy_s():
    """Direction numbers and the order of points, in some of the 21,201 coordinates, for 300 points."""
    steps = directions(MOST, 9)
    found = np.zeros((300, MOST), dtype=np.uint32)
    for k in range(300):
        for level in range(9):
            if (k ^ (k >> 1)) >> level & 1:
                found[k] ^= steps[level]
    some = [0, 1, 2, 999, MOST - 1]
    wanted = qmc.Sobol(MOST, scramble=False).random_base2(9)[:300]
    assert np.array_equal(found[:, some] / 2**32, wanted[:, some])
    assert np.array_equal(scrambled(steps, np.zeros_like(steps)), steps)


def test_scrambled_points_are_those_of_explicit_matrices():
    for key, size, copies in ((7, 5, 20), (2**127 + 1, 2, 1), (3, 1, 33)):
        wanted = naive_noise.points(size, key, copies)
        assert np.array_equal(points(size, key, range(copies)), wanted)
        assert np.array_equal(points(size, key, range(copies // 2, copies)), wanted[copies // 2 :])


def test_scrambled_points_keep_the_net():
    """Of 2^k points each dyadic interval has as many as its share, in one coordinate and in the first two."""
    for key in range(20):
        x = points(2, key, range(64)) / 2**32
        for first in range(7):
            cells = (x * [2**first, 2 ** (6 - first)]).astype(int)
            assert len(set(map(tuple, cells))) == 64
    x = points(50, 3, range(128)) / 2**32
    assert all(len(set((column * 128).astype(int))) == 128 for column in x.T)


def test_normal_scores_have_mirror_images_and_finite_ends():
    words = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], dtype=np.uint32)
    z = normals(words).double()
    assert torch.equal(z, -z.flip(0))
    assert z.numpy() == pytest.approx(stats.norm.ppf((words + 0.5) / 2**32), rel=1e-6)
    assert 6.3 < float(z.max()) < 6.4


@pytest.mark.parametrize(
    ("where", "injection", "share", "samples", "copies"),
    [
        ("activations", "layerwise", "sample", 8, 64),
        ("activations", "joint", "batch", 8, 128),
        ("weights", "layerwise", "batch", 8, 128),
        ("weights", "joint", "batch", 8, 256),
    ],
)
def test_mean_of_sobol_blocks_in_closed_form(where, injection, share, samples, copies):
    """As for independent copies: z-tests over 64 blocks; a fault of scale of 20 % is seen."""
    check_chain(where, injection, share, "sobol", samples, copies, 0.2)


def block_spread(noise: str, copies: int, antithetic: bool = False, blocks: int = 100) -> float:
    """Variance of a block's direction, both coordinates together, on a smooth function of two variables."""
    problem = find_function("beale").problem((-1.0, 0.5))
    estimator = make(f"es(noise={noise}, sigma=0.3, antithetic={antithetic})").estimator
    found = collect(estimator, problem, layers_of(problem), blocks, copies)
    return float(found.var(0).sum())


@pytest.mark.parametrize("antithetic", [False, True])
def test_blocks_of_sobol_noise_vary_less_where_few_smooth_coordinates_matter(antithetic):
    """Against Gaussian blocks, and faster than 1/m; a ratio of 2.7 would be chance once in 10^6."""
    limit = stats.f.isf(ALARM / 2, 99, 99)
    small, large = (block_spread("sobol", m, antithetic) for m in (16, 256))
    assert block_spread("gaussian", 256, antithetic) > limit * large
    assert 16 * small > limit * 256 * large


def test_blocks_of_odd_sizes_are_unbiased():
    """Means of 8 blocks of 7, 64 of them, against the gradient of the smoothed function by quadrature."""
    problem = find_function("beale").problem((-1.0, 0.5))
    estimator = make("es(noise=sobol, sigma=0.3)").estimator
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    x, y = np.meshgrid(nodes, nodes)
    share = np.outer(weights, weights) / (2 * math.pi)
    at = torch.from_numpy(np.stack([-1 + 0.3 * x, 0.5 + 0.3 * y], -1)).requires_grad_()
    (find_function("beale").values(at) * torch.from_numpy(share)).sum().backward()
    expected = at.grad.sum((0, 1))
    found = collect(estimator, problem, layers_of(problem), 512, 7).view(64, 8, 2).mean(1)
    MeanTest(found, expected).check(0.3)


def wide(outputs: int = 400) -> Problem:
    """Two layers of many outputs: 8 samples of 400, and of 2,700."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, outputs), nn.Tanh(), nn.Linear(outputs, 2700, bias=False))
    return Problem(net, (torch.ones(8, 2), torch.zeros(8, 2700)), "mse")


def test_too_many_coordinates_are_refused_in_one_sentence():
    problem = wide()
    first, second = layers_of(problem)
    lr, joint = (make(f"lr(noise=sobol, injection={x})").estimator for x in ("layerwise", "joint"))
    assert list(lr.refusals(problem, [first, second])) == [second.name]
    assert "21,600 coordinates" in lr.refusals(problem, [first, second])[second.name]
    assert set(joint.refusals(problem, [first, second])) == {first.name, second.name}
    assert not joint.refusals(problem, [first])
    with pytest.raises(UsageError, match="24,800 coordinates.*injection=layerwise"):
        gp.estimate(problem, "lr(noise=sobol, injection=joint)", copies=2)
    for given in ("noise-level(noise=sobol)", "lr(noise=sobol)"):  # whatever the estimator refuses by itself
        with pytest.raises(UsageError, match="21,600 coordinates"):
            gp.estimate(problem, given, copies=2)
    assert not make("lr(noise=sobol, share=batch)").estimator.refusals(problem, [first, second])
    assert set(make("es(noise=sobol)").estimator.refusals(problem, [first, second])) == {second.name}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("lr(noise=sobol, centre=mean)", "centre=mean would be biased.*use centre=clean"),
        ("lr(noise=low-rank)", "noise=low-rank is for weights.*use another noise, or es"),
        ("hybrid(noise=low-rank(rank=2))", "is for weights, not for activations"),
        ("es(noise=low-rank(rank=0))", "rank must be a positive whole number, not 0"),
        ("es(noise=low-rank(rang=2))", "unknown option of noise low-rank 'rang'. Did you mean 'rank'"),
        ("es(noise=gaussian(rank=2))", "unknown option of noise gaussian 'rank'"),
        ("es(noise=lowrank(rank=2))", "unknown noise 'lowrank'. Did you mean 'low-rank'"),
    ],
)
def test_what_cannot_be_is_one_sentence(given, match):
    with pytest.raises(UsageError, match=match) as error:
        make(given)
    assert "\n" not in str(error.value)


def test_samples_cannot_be_told_apart_within_blocks_that_are_not_independent():
    with pytest.raises(UsageError, match="copies of a block are not independent"):
        gp.probe(classifier(), ["lr(noise=sobol)"], copies=8, block=4, seeds=2, per_sample=True)
    gp.probe(classifier(), ["es(noise=low-rank, share=sample)"], copies=8, block=4, seeds=2, per_sample=True)


# --- options in runs


def test_options_of_the_noise_are_part_of_the_label_and_read_back(tmp_path):
    ways = ["es(noise=low-rank(rank = 2))", "es(noise='low-rank( rank=2 )')"]
    assert {make(way).label for way in ways} == {"es(noise=low-rank(rank=2))"}
    assert make("es(noise=low-rank(rank=1))").label == "es(noise=low-rank)"
    assert make("hybrid(noise=gaussian())").label == "hybrid"
    again = [
        "es(noise=low-rank(rank=2))",
        "lr(noise=sobol)",
        "aes(noise=low-rank)",
    ]
    out = tmp_path / "run"
    first = gp.probe(classifier(), again, copies=20, block=4, seeds=3, sigma=0.1, out=out)
    labels = [f"{name[:-1]}, sigma=0.1)" for name in again]
    assert [str(x) for x in first["estimator"].values] == labels
    more = gp.probe(classifier(), labels, copies=20, block=4, seeds=4, out=out)
    assert np.array_equal(more["dot"].isel(seed=slice(3)), first["dot"])
    swept = gp.sigma_sweep(classifier(), again[:1], sigmas=(0.1, 0.2), copies=8, block=4, seeds=2)
    assert [str(x) for x in swept["estimator"].values] == [labels[0], labels[0].replace("0.1", "0.2")]
    assert np.isfinite(gp.stats.cosine(first)).all()
