"""Keys and noise: which numbers, independent of when and in what order; and whether they are distributed right."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import make_noise
from gradprobe.engine.noise import NOISE
from gradprobe.engine.tiles import unit_noise
from tests.truth.checks import PLAIN as FAMILIES
from tests.truth.checks import SEED, check_key_components, known, normal_quantile

ALARM = 1e-6  # false-alarm rate of each statistical test here
LIMIT = normal_quantile(ALARM / 2)
KEY = st.tuples(
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.sampled_from(["draw", "smoothed"]),
    st.sampled_from(["gaussian", "laplace", "rademacher"]),
    st.sampled_from(["activations", "weights"]),
    st.text(max_size=6),
    st.integers(0, 3000),
    st.integers(0, 2**40),
)


def generator(key):
    root, seed, purpose, family, where, layer, call, block = key
    return Streams(root, seed, purpose).generator(family, where, layer, call, block)


def key_bits(key) -> tuple[int, ...]:
    """The 128 bits that a stream starts from."""
    root, seed, purpose, family, where, layer, call, block = key
    bits = Streams(root, seed, purpose).key(family, where, layer, call, block)
    assert tuple(int(v) for v in generator(key).bit_generator.state["state"]["key"]) == (
        bits % 2**64,
        bits >> 64,
    )
    return bits % 2**64, bits >> 64


def numbers(key) -> list[float]:
    return generator(key).standard_normal(8).tolist()


def sample(family: str, copies: int = 64, size: int = 50, blocks: int = 128) -> np.ndarray:
    """Noise of many blocks, as the engine draws it: ``[blocks, copies, size]``."""
    make = NOISE.get(family)()
    drawn = [
        unit_noise(make, SEED.key(family, "weights", "layer", 0, block), (size,), range(copies))
        for block in range(blocks)
    ]
    return torch.stack(drawn).numpy()


# --- keys


def test_order_and_history_do_not_matter():
    keys = [
        (1, s, "draw", "gaussian", w, x, c, b)
        for s, w, x, c, b in itertools.product((0, 1), ("activations", "weights"), ("a", "b"), (0, 1), (0, 1))
    ]
    forward = {k: numbers(k) for k in keys}
    backward = {}
    for k in reversed(keys):
        generator(k).standard_normal(1000)  # a stream that was used before starts at its beginning again
        backward[k] = numbers(k)
    assert forward == backward
    assert len({tuple(v) for v in forward.values()}) == len(keys)


def test_every_component_of_the_key_matters():
    check_key_components(numbers)


def test_seeds_that_agree_in_their_low_bits_differ():
    """Seeds cut to 32 bits would make 5 and 5 + 2^32 the same experiment."""
    for big in (2**32, 2**64, 2**128):
        base = (5, 5, "draw", "gaussian", "weights", "a", 0, 5)
        for place in (0, 1, 7):
            other = list(base)
            other[place] += big
            assert numbers(tuple(other)) != numbers(base)
    assert numbers((-5, 5, *base[2:])) != numbers(base)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(KEY, KEY)
def test_different_keys_start_from_different_bits(one, other):
    assert (key_bits(one) == key_bits(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("1", 1), ("11", 1)),
        (("a", 11), ("a1", 1)),
        (('a", 1', 1), ("a", 1)),
        (('a",1,"b', 0), ("a", 1)),
        (("a\\", 0), ("a", 0)),
        (("\u00e9", 0), ("e\u0301", 0)),
        (("", 0), ("(root)", 0)),
    ],
)
def test_names_cannot_imitate_other_keys(one, other):
    (a, i), (b, j) = one, other
    assert key_bits((0, 0, "draw", "gaussian", "weights", a, i, 0)) != key_bits(
        (0, 0, "draw", "gaussian", "weights", b, j, 0)
    )


def test_no_collision_among_200000_keys():
    """Of 128 bits: chance 6e-29. Half of the bits would do (1e-9); each half is looked at on its own."""
    keys = itertools.product(
        (0, 1), range(20), ["draw"], ["gaussian"], ["weights"], "abcde", range(10), range(100)
    )
    bits = [key_bits(k) for k in keys]
    assert len(bits) == 200_000
    for half in (0, 1):
        assert len({b[half] for b in bits}) == len(bits)
    ones = np.unpackbits(np.array(bits, dtype=np.uint64).view(np.uint8).reshape(len(bits), 16), axis=1).mean(
        0
    )
    assert np.abs(ones - 0.5).max() < normal_quantile(ALARM / 256) * 0.5 / math.sqrt(len(bits))


# --- noise of a block


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_layers_do_not_depend_on_company(family):
    """The noise of a layer is the same alone and among others; a block's does not depend on other blocks."""
    problem, layers = known("mlp")
    draw = Draw("weights", "joint", family)
    together = make_noise(problem, draw, layers, Block(7, 4), SEED)
    make_noise(problem, draw, layers, Block(6, 4), SEED)
    for layer in reversed(layers):
        alone = make_noise(problem, draw, [layer], Block(7, 4), SEED)
        assert all(torch.equal(eps, together[site]) for site, eps in alone.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["activations", "weights"])
@pytest.mark.parametrize("share", ["sample", "batch"])
def test_antithetic_halves_cancel_and_sigma_does_not_enter(family, where, share):
    problem, layers = known("mlp")
    draw = Draw(where, "joint", family, antithetic=True, share=share, sigma=0.1)
    noise = make_noise(problem, draw, layers, Block(1, 6), SEED)
    louder = make_noise(problem, dataclasses.replace(draw, sigma=10.0), layers, Block(1, 6), SEED)
    plain = make_noise(problem, dataclasses.replace(draw, antithetic=False), layers, Block(1, 3), SEED)
    for site, eps in noise.items():
        assert torch.equal(eps[3:], -eps[:3])
        assert torch.equal(eps, louder[site])
        assert torch.equal(eps[:3], plain[site])


def test_shared_noise_has_no_axis_of_samples_and_own_noise_differs_between_samples():
    problem, layers = known("mlp")
    for where in ("activations", "weights"):
        own = make_noise(problem, Draw(where, share="sample"), layers, Block(0, 2), SEED)
        one = make_noise(problem, Draw(where, share="batch"), layers, Block(0, 2), SEED)
        for site, eps in own.items():
            assert eps.shape[1] == problem.batch_size
            assert len({tuple(eps[0, b].flatten().tolist()) for b in range(problem.batch_size)}) > 1
            assert one[site][0].numel() * problem.batch_size == eps[0].numel()


# --- distributions


@pytest.mark.parametrize("family", FAMILIES)
def test_moments(family):
    """Mean, variance and odd moments; sees a fault of 1 % in sigma with 99.9 % chance."""
    x = sample(family).astype(np.float64).ravel()
    assert sample(family).dtype == np.float32
    kurtosis = {"rademacher": 1.0, "gaussian": 3.0, "laplace": 6.0}.get(family, 6.0)
    error = math.sqrt((kurtosis - 1) / x.size)
    assert abs(x.mean()) < LIMIT / math.sqrt(x.size)
    assert abs((x**2).mean() - 1) <= LIMIT * error
    assert abs((x**3).mean()) < LIMIT * math.sqrt((x**6).mean() / x.size)
    assert (LIMIT + normal_quantile(1e-3)) * error < 2 * 0.015
    assert abs(((1.015 * x) ** 2).mean() - 1) > LIMIT * error


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_of_the_distribution(family):
    """Kolmogorov and Smirnov at 1e-6; for signs, only +1 and -1 (their shares are the mean's)."""
    x = sample(family).astype(np.float64).ravel()
    cdf = {"gaussian": stats.norm.cdf, "laplace": stats.laplace(scale=math.sqrt(0.5)).cdf}.get(family)
    if cdf is None:
        assert set(np.unique(x)) == {-1.0, 1.0}
        return
    assert stats.kstest(x, cdf).pvalue > ALARM
    assert stats.kstest(1.03 * x, cdf).pvalue < ALARM  # what it sees: 3 % of sigma


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_are_uncorrelated(family):
    """Neighbouring blocks, copies and entries; signs and sizes. Four correlations each at 1e-6 / 4."""
    x = sample(family).astype(np.float64)
    limit = normal_quantile(ALARM / 8)
    signs = np.sign(x)
    pairs = [
        (x[1:], x[:-1]),
        (x[:, 1:], x[:, :-1]),
        (x[:, :, 1:], x[:, :, :-1]),
        (signs[1:], signs[:-1]),
    ]
    for one, other in pairs:
        assert abs((one * other).mean()) < limit * math.sqrt((one**2 * other**2).mean() / one.size)
    size = np.abs(x) - np.abs(x).mean()
    assert abs((signs * size).mean()) <= limit * size.std() / math.sqrt(x.size) + 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_minus_the_derivative_of_the_log_density(family):
    """Stein: E[score(e) f(e)] = E[f'(e)] for f = identity, tanh and cubic. Signs: only for f = identity."""
    x = torch.from_numpy(sample(family)).double().flatten()
    score = NOISE.get(family)().score(x)
    tests = [(x, torch.ones_like(x))]
    if NOISE.get(family).exact:
        tests += [(torch.tanh(x), 1 - torch.tanh(x) ** 2), (x**3, 3 * x**2)]
    for value, slope in tests:
        gap = score * value - slope
        limit = normal_quantile(ALARM / 6)
        assert abs(float(gap.mean())) <= limit * float(gap.std()) / math.sqrt(len(x)) + 1e-12
        wrong = 1.05 * score * value - slope  # a fault of 5 % is seen
        assert abs(float(wrong.mean())) > limit * float(wrong.std()) / math.sqrt(len(x))
