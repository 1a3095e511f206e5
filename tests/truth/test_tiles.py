"""Noise in tiles: any part alone, by any number of threads, of the right distribution, independent across keys.

Every statistical test has a fixed n, one look and a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import math
import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gradprobe.core.streams import NOISE_VERSION, Streams
from gradprobe.engine.noise import NOISE
from gradprobe.engine.noise import gaussian as gaussian_module
from gradprobe.engine.noise.gaussian import STATE_WORDS, Gaussian, normals, torch_takes_states
from gradprobe.engine.tiles import TILE, _philox, sequence, unit_noise
from tests.truth.checks import PLAIN as FAMILIES
from tests.truth.checks import normal_quantile

ALARM = 1e-6
KEY = Streams(3, 1).key("any", "weights", "layer", 0, 0)
MANY = 1 << 22


@pytest.fixture(params=FAMILIES)
def family(request):
    return NOISE.get(request.param)()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# --- which numbers


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sampled_from(FAMILIES), st.integers(0, 4 * TILE), st.integers(0, 3 * TILE))
def test_any_part_alone_is_that_part_of_the_whole(name, start, length):
    whole = sequence(NOISE.get(name)(), KEY, 0, 7 * TILE)
    part = sequence(NOISE.get(name)(), KEY, start, start + length)
    assert torch.equal(part, whole[start : start + length])


def test_threads_do_not_change_it(family, threads):
    threads(1)
    alone = sequence(family, KEY, 100, 20 * TILE + 5)
    for number in (2, 3):
        threads(number)
        assert torch.equal(sequence(family, KEY, 100, 20 * TILE + 5), alone)


def test_copies_follow_each_other_and_images_have_channels_last(family):
    shape = (2, 3, 5, 7)
    block = unit_noise(family, KEY, shape, range(6))
    assert torch.equal(torch.cat([unit_noise(family, KEY, shape, range(k, k + 2)) for k in (0, 2, 4)]), block)
    assert block[0].is_contiguous(memory_format=torch.channels_last)
    flat = sequence(family, KEY, 0, 210)
    assert torch.equal(block[0].permute(0, 2, 3, 1).flatten(), flat)
    assert torch.equal(unit_noise(family, KEY, (210,), range(1))[0], flat)


def test_torch_generator_takes_whole_states():
    """Another implementation of generator and transform, in float64, gives torch's normals."""
    assert torch_takes_states()
    state = np.random.Philox(key=5).random_raw(STATE_WORDS // 2)
    found = torch.empty(TILE)
    Gaussian().fill(state, found)
    assert (found - normals(state.view(np.uint32), TILE)).abs().max() < 1e-5


def test_without_torch_states_the_numbers_are_the_same(monkeypatch):
    fast = sequence(Gaussian(), KEY, 0, 2 * TILE + 100)
    monkeypatch.setattr(gaussian_module, "torch_takes_states", lambda: False)
    assert (sequence(Gaussian(), KEY, 0, 2 * TILE + 100) - fast).abs().max() < 1e-5


GOLDEN = {
    "gaussian": [-1.745489, -1.395182, 0.967313, 0.811885, 1.640293, 1.031973],
    "laplace": [0.17188, 1.361573, -0.200419, 0.05776, -0.170316, 0.095848],
    "rademacher": [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0],
}


def _numbers(pipe) -> None:
    pipe.send(sequence(Gaussian(), 5, 0, 10 * TILE).numpy())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_draws_with_threads_of_its_own():
    """Executors fork by default on Linux before Python 3.14."""
    torch.set_num_threads(2)
    try:
        want = sequence(Gaussian(), 5, 0, 10 * TILE)
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(target=_numbers, args=(theirs,), daemon=True)
        child.start()
        answered = ours.poll(30)
        if not answered:
            child.kill()
        assert answered
        assert np.array_equal(ours.recv(), want.numpy())
        child.join()
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_numbers_behind_a_key_stay(name):
    """If this must change, so must NOISE_VERSION."""
    assert NOISE_VERSION == 2
    key = Streams(1, 2).key(name, "activations", "layer", 0, 3)
    found = sequence(NOISE.get(name)(), key, 2 * TILE - 2, 2 * TILE + 4)
    assert found.tolist() == pytest.approx(GOLDEN[name], abs=1e-5)


# --- how they are distributed


def test_large_sample(family):
    """Moments up to the fourth, and Kolmogorov and Smirnov; sees 0.2 % in sigma."""
    x = sequence(family, KEY, 0, MANY).double().numpy()
    name = type(family).__name__.lower()
    fourth = {"rademacher": 1.0, "gaussian": 3.0, "laplace": 6.0}[name]
    limit = normal_quantile(ALARM / 8)
    assert abs(x.mean()) < limit / math.sqrt(MANY)
    assert abs((x**2).mean() - 1) <= limit * math.sqrt((fourth - 1) / MANY)
    assert abs((x**3).mean()) < limit * math.sqrt((x**6).mean() / MANY)
    assert abs((x**4).mean() - fourth) <= limit * math.sqrt((x**8).mean() / MANY)
    cdf = {"gaussian": stats.norm.cdf, "laplace": stats.laplace(scale=math.sqrt(0.5)).cdf}.get(name)
    if cdf is not None:
        assert stats.kstest(x, cdf).pvalue > ALARM
        assert abs(((1.004 * x) ** 2).mean() - 1) > limit * math.sqrt((fourth - 1) / MANY)


def test_tails_of_the_normal():
    """Numbers beyond 4 sigma: 266 expected among 4 million, none beyond 5.78 (24 bits)."""
    x = sequence(Gaussian(), KEY, 0, MANY).abs()
    beyond = int((x > 4).sum())
    low, high = stats.binom.interval(1 - ALARM, MANY, 2 * stats.norm.sf(4))
    assert low <= beyond <= high
    assert float(x.max()) < 5.78


@pytest.mark.parametrize("lag", [1, 8, 16, TILE // 2, TILE, 2 * TILE])
def test_numbers_of_a_stream_are_uncorrelated(family, lag):
    """At the distances where the construction has seams: neighbours, pairs of the transform, tiles."""
    x = sequence(family, KEY, 0, MANY).double()
    limit = normal_quantile(ALARM / 4)
    assert abs(float((x[lag:] * x[:-lag]).mean())) < limit / math.sqrt(MANY - lag)
    size = x.abs() - x.abs().mean()
    spread = float((size**2).mean())
    assert abs(float((size[lag:] * size[:-lag]).mean())) <= limit * spread / math.sqrt(MANY - lag) + 1e-12


def test_keys_are_independent(family):
    """All pairs of 200 streams, keys one apart in seed or block: the largest correlation, and their spread."""
    keys = [Streams(0, s).key("any", "weights", "layer", 0, b) for s in range(20) for b in range(10)]
    x = torch.stack([sequence(family, key, 0, 8192) for key in keys]).double()
    correlations = (x @ x.T / 8192)[tuple(torch.triu_indices(200, 200, 1))].numpy() * math.sqrt(8192)
    assert abs(correlations).max() < normal_quantile(ALARM / 2 / len(correlations))
    chi = (correlations**2).sum()
    low, high = stats.chi2.interval(1 - ALARM, len(correlations))
    assert low < chi < high


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**60))
@settings(max_examples=50, deadline=None)
def test_a_generator_that_is_used_again_gives_what_a_new_one_gives(key: int, counter: int) -> None:
    new = np.random.Philox(key=key)
    new.advance(counter)
    words = new.random_raw(700)
    assert (_philox(key, counter).random_raw(700) == words).all()
    assert (_philox(key, counter).random_raw(3) == words[:3]).all()
