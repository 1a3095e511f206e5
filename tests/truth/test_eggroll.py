"""EGGROLL: what its mean is, and that it is ES with low-rank noise. Its noise is looked at in test_structured.py.

Every statistical test has a fixed n, one look and a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block
from gradprobe.estimators.base import make
from gradprobe.problems.problem import Problem
from tests.problems_tiny import classifier
from tests.truth import naive
from tests.truth.checks import SEED, MeanTest, assert_same, collect, flat, known, layers_of, same_bits


class Corner(nn.Module):
    """Reads the first entry of a 2 x 2 weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.linear.weight, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)[:, 0]


def test_mean_differs_from_that_of_es_by_the_fourth_moment_of_the_noise():
    """L = w^4/4 in one entry: the mean there is w^3 + w sigma^2 E e^4 with E e^4 = 3 + 6/r; ES has 3."""
    rank = 4
    x = torch.tensor([[1.0, 0.0]]).double()
    problem = Problem(Corner().double(), (x, x), lambda output, _: output**4 / 4)
    sigma, w = 0.5, 0.5
    estimator = make(f"eggroll(rank={rank}, sigma={sigma}, antithetic=True)").estimator
    expected, normal = (
        torch.tensor([w**3 + w * sigma**2 * fourth, 0.0, 0.0, 0.0]).double() for fourth in (3 + 6 / rank, 3.0)
    )
    test = MeanTest(collect(estimator, problem, layers_of(problem), 64, 1024), expected)
    test.check(0.3)
    assert test.smallest < float(expected[0] / normal[0]) - 1  # and is told from that of ES


@pytest.mark.parametrize(("share", "copies"), [("sample", 32), ("batch", 64)])
def test_mean_on_a_quadratic_is_the_gradient(share, copies):
    problem, layers = known("linear")
    truth = naive.pathwise(problem, naive.silent(), layers, Block(0, 1), SEED)
    estimator = make(f"eggroll(sigma=0.3, antithetic=True, share={share})").estimator
    MeanTest(collect(estimator, problem, layers, 64, copies), flat(truth)).check(0.6)


def test_eggroll_is_es_with_low_rank_noise():
    problem, layers = known("cnn")
    options = "sigma=0.2, antithetic=True, injection=joint, centre=mean, encode=sign"
    one = make(f"eggroll(rank=2, {options})").estimator.directions(problem, layers, Block(0, 6), SEED)
    other = make(f"aes(noise=low-rank(rank=2), {options})").estimator
    assert_same(one, naive.directions(other, problem, layers, Block(0, 6), SEED), 1e-6)
    assert same_bits(one, other.directions(problem, layers, Block(0, 6), SEED))


def test_it_shares_the_draw_of_es():
    """One draw, one set of forwards, the same moments."""
    ds = gp.probe(
        classifier(), ["eggroll(rank=2)", "es(noise=low-rank(rank=2))"], copies=20, block=4, seeds=2
    )
    assert (ds["dot"].isel(estimator=0) == ds["dot"].isel(estimator=1)).all()
    alone = gp.probe(classifier(), ["eggroll(rank=2)"], copies=20, block=4, seeds=2)
    assert (ds["forwards"].isel(estimator=0) == alone["forwards"].isel(estimator=0)).all()


@pytest.mark.parametrize(
    ("given", "match"),
    [("eggroll(rank=0)", "rank must be a positive"), ("eggroll(encode=sign-input)", "unknown encode")],
)
def test_what_cannot_be_is_one_sentence(given, match):
    with pytest.raises(UsageError, match=match) as error:
        make(given)
    assert "\n" not in str(error.value)
