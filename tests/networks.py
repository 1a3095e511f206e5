"""What every registered network is put through, in core and in the extras."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from scipy.stats import t
from torch.nn.attention import SDPBackend, sdpa_kernel

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
from tests.truth.checks import MeanTest, check_draw, collect, layers_of, normal_quantile
from tests.truth.trace import global_state, module_state

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
        refused: Estimator -> the layers that it does not serve; one that serves none is refused by the probe.
    """
    layers = layers_of(problem)
    assert [x.name for x in layers] == list(names)
    assert all(x.activations and x.credit == credit for x in layers)
    own = [n for n in ESTIMATORS.names() if make(n).estimator.own_layers]
    others = [n for n in ESTIMATORS.names() if n not in own]
    if own:  # what they bring for the layers
        levels = gp.probe(problem, own, copies=8, block=4, seeds=1, sigma=0.1)
        assert levels.sizes["parameter"] == len(names)
        assert np.isfinite(levels["sqnorm"]).all()
        assert (levels["reference_sqnorm"].sel(reference="smoothed") > 0).all()
    useless = [n for n in others if refused.get(n, set()) >= set(names)]
    for name in useless:
        assert "serves none of the layers" in message_of(
            lambda n=name: gp.probe(problem, [n], copies=4, block=4)
        )
    others = [n for n in others if n not in useless]
    ds = gp.probe(problem, others, copies=8, block=4, seeds=2, sigma=0.1)
    assert ds.sizes["copies"] == 2
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


def check_oracle(
    problem: Problem,
    draw: Draw,
    names: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
) -> None:
    """Every read-out by every engine that agrees (of those named, if any are) equals the naive loop in float64."""
    assert check_draw(problem, draw, chosen(problem, names), engines=engines) > 0


Forward = Callable[[torch.nn.Module, int], torch.Tensor]


def repeated(problem: Problem) -> Forward:
    """A forward of many copies as one batch, to the mean loss over copies; for samples that are independent."""

    def many(value, copies: int, axis: int):
        if isinstance(value, dict):
            return {k: many(v, copies, axis) for k, v in value.items()}
        axis = axis if value.shape[axis:][:1] == (problem.batch_size,) else 0
        return torch.cat([value] * copies, axis)

    def forward(module: torch.nn.Module, copies: int) -> torch.Tensor:
        inputs = many(problem.inputs, copies, problem.batch_axis)
        output = module(**inputs) if isinstance(inputs, dict) else module(inputs)
        target, output = many(problem.target, copies, 0), getattr(output, "logits", output)
        if callable(problem.loss):
            return problem.loss(output, target).mean()
        return torch.nn.functional.cross_entropy(output, target)

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

    def shaken(t: torch.Tensor) -> torch.Tensor:
        return t + sigma * torch.randn(t.shape, generator=generator, dtype=t.dtype)

    def noisy(module, args, output):
        return naive.with_first(output, shaken)

    for path in layer.modules:
        module.get_submodule(path).register_forward_hook(noisy)
    found = []
    for _ in range(blocks):
        gradients = torch.autograd.grad(forward(module, copies), leaves)
        found.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(found)


def slope_variance(problem: Problem, layer: Layer, forward: Forward) -> float:
    """Variance of an antithetic pair's slope on the gradient, if losses are linear in the layer's noise.

    With a_b the gradient of sample b's loss for the layer's output and J_b its Jacobian, a pair gives the cotangent
    (a_b.e) e, and the slope is the sum over b of w_b <(a_b.e) e, J_b g> / |g|^2, whose variance is the sum of
    w_b^2 (|a_b|^2 |J_b g|^2 + (a_b.J_b g)^2) / |g|^4; where the copy's loss is credited, all samples are one. Nothing
    is drawn.
    """
    module, own = naive.copied(problem, [layer])
    leaves = [own[name].requires_grad_() for name in layer.parameters]
    seen, made = [], []

    def see(first: torch.Tensor) -> torch.Tensor:
        seen.append(first)
        return first.clone()  # it may be changed in place

    def cut(first: torch.Tensor) -> torch.Tensor:
        made.append(first)
        return first.detach().clone()

    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        for change in (see, cut):
            hooks = [
                module.get_submodule(path).register_forward_hook(
                    lambda m, args, output, change=change: naive.with_first(output, change)
                )
                for path in layer.modules
            ]
            loss = forward(module, 1)
            if change is see:
                slopes = torch.autograd.grad(loss, seen)
            for hook in hooks:
                hook.remove()
    gradient = torch.autograd.grad(made, leaves, slopes, retain_graph=True)
    square = sum(float((g * g).sum()) for g in gradient)
    weights = [torch.zeros_like(out, requires_grad=True) for out in made]
    pulled = torch.autograd.grad(made, leaves, weights, create_graph=True)
    along = torch.autograd.grad(sum((p * g).sum() for p, g in zip(pulled, gradient, strict=True)), weights)

    def of_samples(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if layer.credit == "copy":
            return torch.cat([each.flatten() for each in tensors])[None]
        return torch.cat([each.movedim(layer.axis, 0).flatten(1) for each in tensors], 1)

    a, u = of_samples(slopes), of_samples(along)
    return float(((a**2).sum(1) * (u**2).sum(1) + (a * u).sum(1) ** 2).sum()) / square**2


def copies_for(
    problem: Problem, layer: Layer, sees: float, forward: Forward, blocks: int = 64, alarm: float = 1e-6
) -> int:
    """Copies in a block with which :func:`check_mean` sees a fault of scale ``sees`` with 99.9 % chance.

    From :func:`slope_variance`, twice over: for what is not linear, and the reference's own noise.
    """
    limit = float(t.isf(alarm / 4, blocks - 1)) + normal_quantile(1e-3)
    pairs = 2 * slope_variance(problem, layer, forward) * (limit / sees) ** 2 / blocks
    return 2 * max(math.ceil(pairs), 1)


def check_mean(
    problem: Problem,
    name: str,
    sees: float,
    sigma: float = 0.3,
    forward: Forward | None = None,
) -> MeanTest:
    """LR's mean on a layer is the smoothed gradient: a z-test on 64 blocks, false alarm 1e-6, one look.

    A block has as many copies as theory asks for (:func:`copies_for`).

    Args:
        problem: The problem.
        name: The layer.
        sees: The smallest fault of scale that must be seen with 99.9 % chance.
        sigma: Of the noise.
        forward: How our own copies are run; as one batch by default.
    """
    (layer,) = chosen(problem, [name])
    forward = forward or repeated(problem)
    copies = copies_for(problem, layer, sees, forward)
    estimator = make("lr", {"antithetic": True, "sigma": sigma}).estimator
    reference = smoothed(problem, layer, sigma, forward, 64, copies)
    expected = reference.mean(0)
    # the reference's own noise is added to the estimate's: the difference of two means
    test = MeanTest(collect(estimator, problem, [layer], 64, copies) - (reference - expected), expected)
    print(f"{problem.name} {name}: {copies} copies, sees {test.smallest:.3f}, slope {test.slope:.4f}")
    test.check(sees)
    return test


SIX = ("lr", "alr", "es", "aes", "hybrid", "a-hybrid")

LISTED = dict[str, tuple[int, str]]
"""Layer name -> calls in a forward, and the loss that its noise is credited with; in execution order."""


def check_whole(problem: Problem, expected: LISTED, refused: Mapping[str, set[str]], **options) -> None:
    """The six noisy presets and backprop probe every layer against both references and leave nothing behind.

    Args:
        problem: The problem.
        expected: The layers, written by hand.
        refused: Preset -> the layers that it does not serve.
        options: Of the probe.
    """
    before = module_state(problem.module), global_state()
    ds = gp.probe(
        problem, [*SIX, "bp"], copies=8, block=4, seeds=1, sigma=0.1, reference=("bp", "smoothed"), **options
    )
    assert (module_state(problem.module), global_state()) == before
    assert {x.name: (x.calls, x.credit) for x in layers_of(problem)} == expected
    assert list(dict.fromkeys(ds["layer"].values.tolist())) == list(expected)
    ds = ds.isel(seed=0)
    for label in ds["estimator"].values:
        mine = ds.sel(estimator=label)
        served = ~np.isin(mine["layer"].values, list(refused.get(str(label).partition("(")[0], ())))
        for name in ("dot", "sqnorm", "block_sqnorm", "reference_sqnorm"):
            values = mine[name] if "reference" not in mine[name].dims else mine[name].sel(reference="bp")
            assert np.isfinite(values.transpose("parameter", ...).values[served]).all(), f"{label}: {name}"
        assert (mine["sqnorm"].transpose("parameter", ...).values[served] > 0).any()
        if label == "bp":
            cosine = mine["dot"] / np.sqrt(mine["sqnorm"] * mine["reference_sqnorm"])
            live = (mine["reference_sqnorm"].sel(reference="bp") > 0).values
            np.testing.assert_allclose(cosine.sel(reference="bp").isel(copies=-1).values[live], 1, rtol=1e-9)
        else:
            smooth = mine["reference_sqnorm"].sel(reference="smoothed").transpose("parameter", ...).values
            assert np.isfinite(smooth[served]).all(), f"{label}: smoothed"


def message_of(call: Callable) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(gp.UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
