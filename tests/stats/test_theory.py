"""What theory promises random directions, against directions that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError

REPEATS = 4000


def drawn(rng: np.random.Generator, d: int, n: int, encode: str) -> tuple[np.ndarray, np.ndarray]:
    """<g_n, g> and |g_n|^2 of many means of n directions, with |g| = 1."""
    g = rng.standard_normal(d)
    g /= np.linalg.norm(g)
    mean = np.zeros((REPEATS, d))
    for _ in range(n):
        e = rng.standard_normal((REPEATS, d))
        slope = (e @ g)[:, None]
        mean += {"exact": slope * e, "noise": slope * np.sign(e), "bit": np.sign(slope) * e}[encode] / n
    return mean @ g, (mean**2).sum(1)


@pytest.mark.parametrize("encode", ["exact", "noise", "bit"])
@pytest.mark.parametrize(("d", "n"), [(5, 1), (5, 8), (40, 10)])
def test_pooled_cosine_of_drawn_directions(encode: str, d: int, n: int) -> None:
    """4,000 repeats, delta method, 6 standard errors: false alarm 2e-9 a case."""
    dot, square = drawn(np.random.default_rng(d + n), d, n, encode)
    pooled = dot.mean() / np.sqrt(square.mean())
    relative = dot / dot.mean() - square / square.mean() / 2
    se = pooled * relative.std() / np.sqrt(REPEATS)
    want = float(stats.theory(d, n, "exact" if encode == "exact" else "sign"))
    assert se < 0.05 * want
    assert abs(pooled - want) < 6 * se


def test_mean_cosines_lie_beside_it_as_stated() -> None:
    """The docstring's -0.030 (D = 10, n = 1) and +0.027 (n = 10): within 6 standard errors."""
    for n, beside in ((1, -0.030), (10, 0.027)):
        dot, square = drawn(np.random.default_rng(n), 10, n, "exact")
        cosine = dot / np.sqrt(square)
        se = cosine.std() / np.sqrt(REPEATS)
        assert abs(cosine.mean() - float(stats.theory(10, n)) - beside) < 6 * se + 0.0015


def test_shapes_follow_what_is_given() -> None:
    layers = xr.DataArray([10, 100], dims="layer", coords={"layer": ["a", "b"]})
    found = stats.theory(layers, [1, 10, 100])
    assert found.dims == ("layer", "copies")
    assert float(found.sel(layer="b", copies=10)) == pytest.approx(np.sqrt(10 / 111))
    assert stats.theory([10, 100], 5).dims == ("coordinate",)
    assert stats.theory(10, [1, 5]).dims == ("copies",)
    assert stats.theory(10, 5).ndim == 0
    assert float(stats.theory(1, 1, "sign")) == pytest.approx(np.sqrt(2 / np.pi))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, 5), "coordinates=0 must be a positive number"),
        ((10, [5, -1]), "must be a positive number or a list"),
        ((10, "many"), "copies='many'"),
        ((10, 5, "signs"), "Did you mean 'sign'"),
    ],
)
def test_careless_input_gets_one_sentence(given: tuple, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stats.theory(*given)
