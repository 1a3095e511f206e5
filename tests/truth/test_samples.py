"""Moments of what samples contribute, against loops over samples and copies."""

from __future__ import annotations

import copy

import pytest
import torch

from gradprobe.core.streams import Block
from gradprobe.engine.draw import Draw
from gradprobe.estimators.apart import MOMENTS, apart_refusal
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block, read_blocks
from gradprobe.estimators.readout import ReadOut, refusal
from gradprobe.layers.find import find_layers
from tests.problems_small import build
from tests.truth import naive
from tests.truth.checks import SEED, flat

READOUTS = {
    "activations": [
        *(ReadOut("clean", "exact"), ReadOut("none", "sign"), ReadOut("mean", "sign-noise")),
        ReadOut("clean", "sign-input"),
    ],
    "weights": [ReadOut("clean", "exact"), ReadOut("none", "sign"), ReadOut("mean", "exact")],
}

DRAWS = [
    Draw(sigma=0.3),
    Draw(sigma=0.3, antithetic=True, noise="laplace"),
    Draw(sigma=0.3, share="batch"),
    Draw(sigma=0.3, injection="joint"),
    Draw(sigma=0.3, injection="joint", antithetic=True),
    Draw("weights", sigma=0.3, share="batch"),
    Draw("weights", sigma=0.3, share="batch", antithetic=True, injection="joint"),
    Draw("weights", sigma=0.3),
]

OTHERS = [
    *("relu-mlp", "two-inputs", "residual-cnn", "conv1d", "transposed2d", "group-norm", "batch-norm"),
    *("other-norms", "layer-norm", "layer-norm-2d", "sequence", "embedding", "sparse-embedding"),
    *("tied-language-model", "one-sample", "parameter-list", "attention", "lstm", "gru", "time-major"),
    *(
        "square-time-major",
        "rich-outputs",
        "weight-norm",
        "functional-weight",
        "own-parameter",
        "root-parameter",
    ),
    *("max-norm", "tied", "checkpointed", "cells", "packed-rnn", "repeated-module", "positional"),
]


def alone(problem, draw, unit, readouts, block, half):
    """What some copies of a block add to each sample's mean contribution: ``[readout][sample]{parameter}``.

    A sample's contribution is the direction of the problem in which no other sample has any weight; copies are left
    out after the losses are centred.
    """
    real_kept, real_centred = naive._kept, naive._centred

    def kept(losses, draw):
        losses, whole = real_kept(losses, draw)
        return losses, [k for k in whole if k in half]

    def centred(readout, losses, clean, k, _, draw):
        return real_centred(readout, losses, clean, k, real_kept(losses, draw)[1], draw)

    found = [[] for _ in readouts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naive, "_kept", kept)
        patch.setattr(naive, "_centred", centred)
        for b in range(problem.batch_size):
            own = copy.copy(problem)
            own.weights = problem.weights * (torch.arange(problem.batch_size) == b)
            for mine, directions in zip(
                found, naive.read(own, draw, unit, readouts, block, SEED), strict=True
            ):
                mine.append(directions)
    return found


def first_half(copies: int, antithetic: bool) -> set[int]:
    if not antithetic:
        return set(range(copies // 2))
    pairs = range(copies // 2 // 2)
    return {*pairs, *(k + copies // 2 for k in pairs)}


def wanted(problem, draw, unit, readouts, block):
    """``[readout]{parameter: (sqnorm [B], product [B])}`` and the contributions to the block's mean."""
    m = block.copies
    one = first_half(m, draw.antithetic)
    first = alone(problem, draw, unit, readouts, block, one)
    second = alone(problem, draw, unit, readouts, block, set(range(m)) - one)
    h1, h2 = len(one), m - len(one)
    found = []
    for ones, twos in zip(first, second, strict=True):
        mine = {}
        for name in [p for x in unit for p in x.parameters]:
            a = torch.stack([torch.as_tensor(d[name]).flatten().double() for d in ones]) * m / h1
            b = torch.stack([torch.as_tensor(d[name]).flatten().double() for d in twos]) * m / h2
            product = (a * b).sum(1)
            tau = ((a - b) ** 2).sum(1) * h1 * h2 / m
            mine[name] = (product + 2 / m * tau, product, (a * h1 + b * h2).sum(0) / m)
        found.append(mine)
    return found


def compare(name: str, draw: Draw, copies: int, most: int | None = None, engine: str = "auto") -> int:
    """Compare all read-outs of a draw on the layers that can take it; return how many moments are not 0."""
    problem, block, compared = build(name), Block(2, copies), 0
    layers = [
        x
        for x in find_layers(problem).layers
        if not refusal(problem, x, draw, ReadOut()) and not apart_refusal(problem, x, draw, copies)
    ]
    for unit in [layers] if draw.injection == "joint" and layers else [[x] for x in layers]:
        readouts = [r for r in READOUTS[draw.where] if not any(refusal(problem, x, draw, r) for x in unit)]
        reading = Reading(problem, draw, unit, readouts, SEED, per_sample=True)
        got = next(read_blocks(reading, [block.index], copies, engine, most))
        plain = read_block(Reading(problem, draw, unit, readouts, SEED), block, engine, most)
        want = wanted(problem, draw, unit, readouts, block)
        for mine, direction, same, theirs in zip(
            got.extras, got.directions, plain.directions, want, strict=True
        ):
            for p, (parameter, values) in enumerate(theirs.items()):
                assert torch.equal(direction[parameter], same[parameter])  # the directions do not change
                assert torch.allclose(
                    values[2], direction[parameter].flatten().double(), rtol=1e-8, atol=1e-12
                )
                for moment, value in zip(MOMENTS, values[:2], strict=True):
                    size = float(values[0].abs().max())
                    error = (torch.from_numpy(mine[moment][p]) - value).abs().max()
                    assert float(error) <= 1e-9 * size + 1e-14, (name, str(draw), parameter, moment)
                    compared += bool(flat({"": value}).norm() > 1e-12)
    return compared


@pytest.mark.parametrize("draw", DRAWS, ids=str)
@pytest.mark.parametrize("name", ["weighted", "cnn", "recurrent"])
def test_moments_of_samples_are_those_of_a_loop(name: str, draw: Draw) -> None:
    assert compare(name, draw, 6 if draw.antithetic else 5)


@pytest.mark.parametrize("name", OTHERS)
def test_every_kind_of_layer_is_pulled_back_sample_by_sample(name: str) -> None:
    assert compare(name, DRAWS[0], 4)


@pytest.mark.parametrize("draw", [DRAWS[5], DRAWS[7]], ids=str)
def test_parameters_that_are_one_number(draw: Draw) -> None:
    assert compare("own-parameter", draw, 4)


@pytest.mark.parametrize("draw", [DRAWS[0], DRAWS[1], DRAWS[5], DRAWS[7]], ids=str)
@pytest.mark.parametrize("engine", ["loop", "tile", "vmap"])
def test_engines_and_parts_of_blocks_agree(draw: Draw, engine: str) -> None:
    if draw.where == "weights" and (engine == "tile" or draw.share == "sample"):
        engine = "loop"
    assert compare("mlp", draw, 6, most=2, engine=engine)
    assert compare("relu-mlp", draw, 6, engine=engine)
