"""Centres of losses: ranks against counting by hand and a closed form, what they need, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block
from gradprobe.estimators.base import make
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.centres import CENTRES
from gradprobe.estimators.draws import read_blocks
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from tests.problems_tiny import classifier
from tests.truth.checks import SEED, MeanTest, assert_same, collect, layers_of

EVERY = torch.ones(6, dtype=torch.bool)


def ranked(losses, kept=EVERY):
    return ReadOut("rank").centred(losses, torch.zeros(()), kept, paired=False)


def test_ranks_are_those_of_scipy_ties_averaged():
    losses = torch.tensor([[3.0, 1.0, 3.0, -2.0, 3.0, 7.0], [0.0] * 6, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).T
    want = (stats.rankdata(losses.numpy(), axis=0) - 1) / 5 - 0.5
    torch.testing.assert_close(ranked(losses.double()), torch.from_numpy(want))
    torch.testing.assert_close(ranked(losses[:, 0].double()), torch.from_numpy(want[:, 0]))


def test_copies_that_are_left_out_have_no_rank_and_take_none():
    losses = torch.tensor([5.0, torch.nan, 1.0, torch.inf, 3.0, -torch.inf]).double()
    kept = losses.isfinite()
    assert ranked(losses, kept).tolist() == [0.5, 0, -0.5, 0, 0, 0]
    assert ranked(losses, torch.arange(6) == 2).tolist() == [0] * 6
    columns = torch.stack([losses, losses.nan_to_num(9.0, 9.0, 9.0)], 1)
    both = ranked(columns, torch.stack([kept, EVERY], 1))
    assert both[:, 0].tolist() == [0.5, 0, -0.5, 0, 0, 0]
    assert both[:, 1].tolist() == pytest.approx([-0.1, 0.3, -0.5, 0.3, -0.3, 0.3])


def slope(size=3):
    """One sample and a loss that is linear in the weights, of gradient (3, 4, 0, ...)."""
    module = nn.Linear(size, 1, bias=False).double()
    batch = torch.zeros(1, size).double()
    batch[0, :2] = torch.tensor([3.0, 4.0])
    return Problem(module, (batch, torch.zeros(1, 1).double()), lambda out, target: out[:, 0])


@pytest.mark.parametrize("copies", [2, 16])
@pytest.mark.parametrize("antithetic", [False, True])
def test_mean_on_a_linear_loss_in_closed_form(copies, antithetic):
    """E[eps F(L)] = g / (|g| 2 sqrt(pi)); an antithetic partner among m - 1 rivals has E|z| / 2 for its share.

    A copy's weight times its noise along g has a variance below 1/4, so 2,048 copies err by 0.011 of a mean of 0.28
    or more, 4 %; 8.5 deviations (false alarms 1e-6, missed 1e-3) are 33 %. The partner alone (m = 2) makes 41 %.
    """
    problem = slope()
    layers = layers_of(problem)
    estimator = make("es(centre=rank, sigma=0.5)", {"antithetic": antithetic}).estimator
    rivals = copies - 1
    length = 1 / (2 * math.sqrt(math.pi))
    if antithetic:
        length = ((rivals - 1) * length + math.sqrt(1 / (2 * math.pi))) / rivals
    expected = torch.tensor([0.6, 0.8, 0.0]).double() * length / 0.5
    blocks = collect(estimator, problem, layers, 2048 // copies, copies)
    MeanTest(blocks, expected).check(0.35)


def test_a_monotone_function_of_the_loss_changes_nothing():
    problem = slope()
    bent = Problem(problem.module, (problem.inputs, problem.target), lambda out, _: out[:, 0].exp() * 1e3 - 5)
    layers, block = layers_of(problem), Block(0, 8)
    for spec in ("es(centre=rank)", "lr(centre=rank)"):
        estimator = make(spec).estimator
        got = (estimator.directions(p, layers, block, SEED) for p in (problem, bent))
        assert_same(next(got), next(got), 1e-12)


@pytest.mark.parametrize("spec", ["es(centre=rank)", "lr(centre=rank, antithetic=True)", "lr(centre=mean)"])
def test_a_block_in_several_calls_is_a_block(spec):
    """Ranks need all losses beforehand, whatever memory has room for."""
    problem = classifier()
    layers = layers_of(problem)
    estimator = make(spec).estimator
    for draw, unit, _ in estimator.draws(layers):
        reading = Reading(problem, draw, unit, [estimator.readout], SEED)
        once = next(read_blocks(reading, range(1), 12, "loop"))
        pieces = next(read_blocks(reading, range(1), 12, "loop", most=4))
        assert_same(pieces.directions[0], once.directions[0], 1e-5)


@pytest.mark.parametrize("centre", CENTRES.names())
def test_declared_facts_are_true(centre):
    """``whole``: another copy's loss matters. ``exact``: twice the losses weigh twice as much. ``fewest``."""
    readout = ReadOut(centre)
    losses = torch.tensor([1.0, 4.0, 2.0, 7.0]).double()
    other = losses.clone()
    other[3] = 0.5
    clean, kept = torch.tensor(3.0).double(), torch.ones(4, dtype=torch.bool)
    one, two = (readout.centred(x, clean, kept, False) for x in (losses, other))
    assert readout.shaping.whole == (one[0] != two[0])
    spread = readout.centred(10 * losses, 10 * clean, kept, False)
    assert readout.shaping.exact == torch.allclose(spread, 10 * one)
    for paired in (False, True):
        least = readout.shaping.fewest(paired)
        readout.check_block(least, paired)
        if least > 1:
            with pytest.raises(UsageError, match=f"centre={centre} needs other copies"):
                readout.check_block(least - 1, paired)


def test_target_and_per_sample():
    assert make("es(centre=rank)").estimator.target == "surrogate"
    assert make("es(centre=mean)").estimator.target == "smoothed"
    with pytest.raises(UsageError, match="halves of a block are not independent"):
        gp.probe(classifier(), "es(centre=rank)", copies=8, block=4, seeds=2, per_sample=True)
    with pytest.raises(UsageError, match="Did you mean 'rank'"):
        make("es(centre=ranks)")


def test_a_field_of_ranks_is_sampled_not_integrated():
    """The rule for exact centres would integrate the losses themselves."""
    field = gp.field("booth", ["es", "es(centre=rank)"], sigma=0.3, points=3, copies=None)
    assert field["how"].values.tolist()[1:] == ["integrated", "sampled"]
    path = gp.descend(
        "booth", "es(centre=rank, encode=sign)", start=(2.0, 2.0), steps=2, lr=1e-3, copies=4, seeds=2
    )
    assert bool(path["shrinks"].isnull().all())
