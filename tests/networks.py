"""What every registered network is put through, in core and in the extras."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.engine.preflight import agrees
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import make
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.build import build
from gradprobe.problems.problem import Problem
from gradprobe.problems.training import accuracy, train
from tests.truth import naive
from tests.truth.checks import MeanTest, check_draw, collect, layers_of

DRAWS = (
    Draw("activations", "layerwise", "gaussian", False, "sample", 0.3),
    Draw("activations", "joint", "laplace", True, "batch", 0.3),
    Draw("weights", "layerwise", "laplace", True, "batch", 0.3),
)
ACTIVATIONS, WEIGHTS = Draw(sigma=0.1), Draw("weights", share="batch", sigma=0.1)


def seeded(make_it: Callable, seed: int = 0):
    """What a function makes, with torch's global generator at a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_it()


def tiny(model: str, data: str, rows: int = 4, **options) -> Problem:
    """The first rows of a data set and an untrained network, in float64."""
    found = DATASETS.get(data)("train")
    module = seeded(lambda: build(model, NETWORKS.get(model), found.offers, options, data)).double()
    inputs, targets = found.batch(rows)
    return Problem(module, (inputs.double() if inputs.is_floating_point() else inputs, targets), name=model)


def check_training(model: str, data: str, epochs: int, rate: float, below: float, above: float, **options):
    """A few epochs bring the loss below what no constant answer reaches, and test accuracy far above chance.

    The classes are about equally frequent: a constant answer has a loss of log(classes) at least.
    """
    load = DATASETS.get(data)
    found, test = load("train"), load("test")
    module = seeded(lambda: build(model, NETWORKS.get(model), found.offers, options, data))
    generator = torch.Generator().manual_seed(0)
    *_, loss = train(module, found, epochs, rate=rate, generator=generator)
    assert below <= math.log(found.classes) / 2, "a bound that tells learning from chance"
    assert above >= 2.5 / found.classes, "likewise"
    assert loss < below
    assert accuracy(module, test) > above
    return module


def check_probed(
    problem: Problem, names: Sequence[str], credit: str, refused: Mapping[str, set[str]]
) -> None:
    """Every registered estimator probes the layers that are expected, with finite moments.

    Args:
        problem: The problem.
        names: The layers, in execution order.
        credit: Which loss their noise is credited with.
        refused: Estimator -> the layers that it does not serve.
    """
    layers = layers_of(problem)
    assert [x.name for x in layers] == list(names)
    assert all(x.activations and x.credit == credit for x in layers)
    ds = gp.probe(problem, ESTIMATORS.names(), copies=20, block=4, seeds=2, sigma=0.1)
    assert ds.sizes["copies"] == 5
    for label in ds["estimator"].values:
        mine = ds.sel(estimator=label)
        missing = refused.get(make(str(label)).label.partition("(")[0], set())
        served = ~np.isin(mine["layer"].values, list(missing))
        for name in ("dot", "sqnorm", "block_sqnorm", "reference_sqnorm"):
            finite = np.isfinite(mine[name].transpose("parameter", ...).values)
            assert finite[served].all(), f"{label}: {name}"
        assert not np.isfinite(mine["sqnorm"].transpose("parameter", ...).values[~served]).any()
        assert (mine["reference_sqnorm"] > 0).any()


def chosen(problem: Problem, names: Sequence[str] | None) -> list[Layer]:
    """The named layers of a problem, all by default, in execution order."""
    layers = layers_of(problem)
    assert names is None or set(names) <= {x.name for x in layers}
    return [x for x in layers if names is None or x.name in names]


def check_engines(
    problem: Problem, serves: Mapping[str, set[str]], names: Sequence[str] | None = None
) -> None:
    """Which engines give what the loop gives.

    Args:
        problem: The problem.
        serves: ``"activations"`` and ``"weights"`` -> the engines that serve every layer; the others of tile,
            vmap and the traced loop serve none.
        names: The layers that are tried, all by default.
    """
    layers = chosen(problem, names)
    for draw in (ACTIVATIONS, WEIGHTS):
        for engine in ("tile", "vmap", "loop graph"):
            with problem.frozen():
                found = {x.name for x in layers if agrees(problem, draw, [x], engine)}
            wanted = {x.name for x in layers} if engine in serves[draw.where] else set()
            assert found == wanted, f"{draw.where} {engine}"


def check_oracle(problem: Problem, draw: Draw, names: Sequence[str] | None = None) -> None:
    """Every read-out by every engine that agrees equals the naive loop in float64."""
    assert check_draw(problem, draw, chosen(problem, names)) > 0


Forward = Callable[[torch.nn.Module, int], torch.Tensor]


def repeated(problem: Problem) -> Forward:
    """A forward of many copies as one batch, to the mean loss over copies; for samples that are independent."""

    def forward(module: torch.nn.Module, copies: int) -> torch.Tensor:
        inputs = problem.inputs.repeat(copies, *[1] * (problem.inputs.ndim - 1))
        return torch.nn.functional.cross_entropy(module(inputs), problem.target.repeat(copies))

    return forward


def smoothed(
    problem: Problem, layer: Layer, sigma: float, forward: Forward, blocks: int, copies: int
) -> torch.Tensor:
    """Block means ``[K, D]`` of backprop under Gaussian noise on one layer's output.

    Noise of our own, added by a plain hook on a copy of the user's module (a recurrence written out); the engine
    takes no part.
    """
    module, own = naive.copied(problem, [layer])
    leaves = [own[name] for name in layer.parameters]
    generator = torch.Generator().manual_seed(77)

    def noisy(module, args, output):
        return output + sigma * torch.randn(output.shape, generator=generator, dtype=output.dtype)

    (path,) = layer.modules
    module.get_submodule(path).register_forward_hook(noisy)
    found = []
    for _ in range(blocks):
        gradients = torch.autograd.grad(forward(module, copies), leaves)
        found.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(found)


def check_mean(
    problem: Problem,
    name: str,
    sees: float,
    copies: int = 64,
    sigma: float = 0.3,
    forward: Forward | None = None,
) -> MeanTest:
    """LR's mean on a layer is the smoothed gradient: a z-test on 64 blocks, false alarm 1e-6, one look.

    Args:
        problem: The problem.
        name: The layer.
        sees: The smallest fault of scale that must be seen with 99.9 % chance.
        copies: Copies in a block.
        sigma: Of the noise.
        forward: How our own copies are run; as one batch by default.
    """
    (layer,) = chosen(problem, [name])
    estimator = make("lr", {"antithetic": True, "sigma": sigma}).estimator
    reference = smoothed(problem, layer, sigma, forward or repeated(problem), 64, copies)
    expected = reference.mean(0)
    # the reference's own noise is added to the estimate's: the difference of two means
    test = MeanTest(collect(estimator, problem, [layer], 64, copies) - (reference - expected), expected)
    print(f"{problem.name} {name}: sees {test.smallest:.3f}, slope {test.slope:.4f}")
    test.check(sees)
    return test


def message_of(call: Callable) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(gp.UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
