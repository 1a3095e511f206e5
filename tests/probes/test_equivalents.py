"""What a copy costs: shares of a forward against hand counts, and against which operations noise really changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import gradprobe as gp
from gradprobe.core.hooks import first_tensor, intercept, tensors, untouched_globals, with_first_tensor
from gradprobe.core.layer import paths
from gradprobe.engine.draw import Draw
from gradprobe.engine.operations import Operations, count_operations
from gradprobe.engine.price import price
from gradprobe.layers.find import find_layers
from gradprobe.problems.networks.resnet5 import ResNet5
from tests.problems_small import CATALOGUE, build
from tests.problems_tiny import classifier

ACTIVATIONS, WEIGHTS = Draw(), Draw("weights", share="batch")


def counted(problem: gp.Problem) -> tuple[Operations, list]:
    with untouched_globals():
        layers = list(find_layers(problem).layers)
        return count_operations(problem, layers), layers


def shares(problem: gp.Problem, draw: Draw) -> list[float]:
    operations, layers = counted(problem)
    return [operations.share(draw, [layer]) for layer in layers]


# --- hand counts


def test_perceptron_against_a_hand_count() -> None:
    sizes = (7, 5, 4, 3)
    module = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    problem = gp.Problem(module, (torch.randn(6, 7), torch.randint(0, 3, (6,))))
    products = [a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    after = [5, 4, 2 * 3]  # ReLU, ReLU, log-softmax and picking the target: one for each number
    total = sum(products) + sum(after)
    weights = [sum(products[i:]) + sum(after[i:]) for i in range(3)]
    activations = [sum(products[i + 1 :]) + sum(after[i:]) for i in range(3)]
    assert np.allclose(shares(problem, WEIGHTS), np.array(weights) / total, rtol=1e-12)
    assert np.allclose(shares(problem, ACTIVATIONS), np.array(activations) / total, rtol=1e-12)
    operations, layers = counted(problem)
    for draw, first in ((WEIGHTS, weights), (ACTIVATIONS, activations)):
        assert operations.share(draw, layers) == pytest.approx(first[0] / total, rel=1e-12)
        assert operations.share(draw, layers[1:]) == pytest.approx(first[1] / total, rel=1e-12)
    assert sum(operations.spent.values()) == 6 * total


def test_resnet5_against_a_hand_count() -> None:
    problem = gp.Problem(ResNet5((3, 16, 16), width=4), (torch.randn(2, 3, 16, 16), torch.tensor([1, 7])))
    large, small = 16 * 16, 8 * 8
    product = {"conv1": 3 * 4 * 9 * large, "conv2": 4 * 8 * 9 * large, "conv3": 8 * 16 * 9 * small}
    product |= {"conv4": 16 * 16 * 9 * small, "fc": 16 * 2 * 2 * 10}
    after = {"conv1": 4 * large, "conv2": 2 * 8 * large, "conv3": 16 * small}  # ReLU; pooling reads its input
    after |= {"conv4": 3 * 16 * small, "fc": 20}  # ReLU, the skip's sum, pooling; the loss
    names = list(product)
    total = sum(product.values()) + sum(after.values())
    for i, share in enumerate(shares(problem, WEIGHTS)):
        assert share == pytest.approx(sum(product[n] + after[n] for n in names[i:]) / total, rel=1e-12)
    for i, share in enumerate(shares(problem, ACTIVATIONS)):
        rest = sum(product[n] for n in names[i + 1 :]) + sum(after[n] for n in names[i:])
        assert share == pytest.approx(rest / total, rel=1e-12)


def test_what_runs_beside_the_noise_is_not_counted() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.top = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.top(self.left(x) + self.right(x))

    problem = gp.Problem(Two(), (torch.randn(5, 3), torch.randn(5, 2)), "mse")
    total, rest = 2 * 12 + 4 + 8 + 2 + 2, 4 + 8 + 2 + 2  # a sum, a product, squares and their mean
    assert np.allclose(shares(problem, ACTIVATIONS)[:2], rest / total)
    assert np.allclose(shares(problem, WEIGHTS)[:2], (rest + 12) / total)


# --- which operations noise really changes


class Recorded(TorchDispatchMode):
    """Every operation of a forward with its price and its result."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        cost = price(func, args, kwargs or {}, result)
        self.rows.append((str(func), cost, [t.clone() for t in tensors(result)]))
        return result


def record(problem: gp.Problem, layers: list, draw: Draw, noise: float) -> list:
    """The operations of a forward, with noise in these layers."""
    generator = torch.Generator().manual_seed(1)

    def noisy(t: torch.Tensor) -> torch.Tensor:
        with torch.utils._python_dispatch._disable_current_modes():
            return t + noise * torch.randn(t.shape, generator=generator, dtype=t.dtype)

    values = {p: problem.parameters[p].clone() for layer in layers for p in layer.parameters}
    if draw.where == "weights":
        values = {p: noisy(v) for p, v in values.items()}

    def edit(call, output):
        return with_first_tensor(output, noisy(first_tensor(output)))

    seen = Recorded()
    hooked = layers if draw.where == "activations" else []
    with untouched_globals(), torch.no_grad(), intercept(problem.twin, paths(hooked), edit) as calls:
        calls.restart()
        with seen:
            problem.evaluate(values)
    return seen.rows


def changed(problem: gp.Problem, layers: list, draw: Draw) -> float:
    """Share of the operations whose results noise changes."""
    clean, noisy = (record(problem, layers, draw, size) for size in (0.0, 0.3))
    assert [row[0] for row in clean] == [row[0] for row in noisy]
    spent = [
        cost
        for (_, cost, old), (_, _, new) in zip(clean, noisy, strict=True)
        if any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
    ]
    return sum(spent) / sum(cost for _, cost, _ in clean)


STARTS_AT_ZERO = {"lstm", "lstm-outputs", "gru", "cells"}
"""Noise times a state of zero: it counts, but changes nothing."""


@pytest.mark.parametrize("name", CATALOGUE)
def test_shares_are_those_of_the_operations_that_noise_changes(name: str) -> None:
    problem = build(name)
    operations, layers = counted(problem)
    for draw in (ACTIVATIONS, WEIGHTS):
        served = [layer for layer in layers if layer.activations or draw.where == "weights"]
        for together in [*([layer] for layer in served), served]:
            if together:
                share = operations.share(draw, together)
                assert 0 < share <= 1
                seen = changed(problem, together, draw)
                assert seen - 1e-12 < share < seen + (0.1 if name in STARTS_AT_ZERO else 1e-12)


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_number_that_is_read_out_counts_for_all_that_follows(layer: str) -> None:
    class Switch(nn.Module):
        def __init__(self, read: Callable) -> None:
            super().__init__()
            self.first, self.last, self.read = nn.Linear(3, 3), nn.Linear(3, 2), read

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            size = self.read(self.first(x))
            return self.last(x * size)

    batch = (torch.randn(4, 3), torch.randint(0, 2, (4,)))
    reads = (
        lambda h: h.square().mean(),
        lambda h: h.square().mean().item(),
        lambda h: float(h.square().mean().detach().numpy()),
        lambda h: float(np.from_dlpack(h.square().mean().detach())),
    )
    index = ("first", "last").index(layer)
    whole, *others = [
        shares(gp.Problem(Switch(read), batch, loss_per="copy"), WEIGHTS)[index] for read in reads
    ]
    assert others == pytest.approx([whole] * len(others))


# --- prices


def test_fused_attention_costs_what_its_products_do() -> None:
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        result = F.scaled_dot_product_attention(q, k, v)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    assert price(fused, (q, k, v), {}, result) == flops.get_total_flops() / 2


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_fused_recurrent_layers_cost_their_matrices_at_every_step(kind: str, gates: int) -> None:
    module = getattr(nn, kind)(5, 6)
    seen = Recorded()
    with torch.no_grad(), seen:
        module(torch.randn(7, 3, 5))
    products = 7 * 3 * gates * 6 * (5 + 6)
    assert products <= sum(cost for _, cost, _ in seen.rows) <= 1.6 * products  # the rest is elementwise


def test_a_bilinear_layer_costs_its_weight_for_each_sample() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.both = nn.Linear(4, 5), nn.Bilinear(5, 7, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.both(self.first(x[:, :4]), x[:, 4:])

    problem = gp.Problem(Pair(), (torch.randn(6, 11), torch.randint(0, 3, (6,))))
    after = 3 + 2 * 3  # the bias, log-softmax and picking the target
    total = 4 * 5 + 5 * 7 * 3 + after
    assert shares(problem, WEIGHTS) == pytest.approx([1, (total - 4 * 5) / total], rel=1e-12)
    assert sum(counted(problem)[0].spent.values()) == 6 * total


def test_moving_numbers_is_free() -> None:
    x = torch.randn(4, 5)
    seen = Recorded()
    with seen:
        torch.zeros_like(x), x.view(20), x.t(), x.clone(), x.double(), torch.zeros(3), x[1:], x.new_ones(2)
    assert sum(cost for _, cost, _ in seen.rows) == 0


def test_a_lookup_costs_what_it_puts_out() -> None:
    seen = Recorded()
    with seen:
        F.embedding(torch.tensor([1, 2]), torch.randn(1000, 3))
    assert sum(cost for _, cost, _ in seen.rows) == 6


# --- in a run


def test_a_run_books_the_share_of_each_copy(tmp_path: Path) -> None:
    problem = classifier()
    operations, layers = counted(problem)
    asked = ["lr", "es", "hybrid", "bp", "lr(injection=joint)"]
    ds = gp.probe(problem, asked, copies=12, block=4, seeds=2, out=tmp_path / "run")
    n = np.array([4.0, 8.0, 12.0])
    for label, draw in (("lr", ACTIVATIONS), ("es", WEIGHTS)):
        for layer in layers:
            booked = ds["equivalents"].sel(estimator=label, parameter=layer.parameters[0], seed=1).values
            assert np.allclose(booked, n * operations.share(draw, [layer]), rtol=1e-12)
            assert (ds["equivalents"].sel(estimator=label, parameter=layer.parameters[1], seed=1) == 0).all()
    assert ds["forwards"].sel(estimator="lr", seed=0).sum("parameter").values == pytest.approx(2 * n)
    joint = ds["equivalents"].sel(estimator="lr(injection=joint)", seed=0)
    assert np.allclose(joint.isel(parameter=0), n * operations.share(ACTIVATIONS, layers), rtol=1e-12)
    assert (joint.isel(parameter=slice(1, None)) == 0).all()
    backprop = ds.sel(estimator="bp", seed=0).isel(copies=0).sum("parameter")
    assert float(backprop["equivalents"]) == 3 * float(backprop["forwards"]) == 3
    more = gp.probe(problem, asked, copies=12, block=4, seeds=3, out=tmp_path / "run")
    assert np.array_equal(more["equivalents"].sel(seed=[0, 1]), ds["equivalents"])
    assert np.array_equal(more["equivalents"].sel(seed=2), ds["equivalents"].sel(seed=1))


def test_units_of_an_older_version_get_the_share_of_the_others(tmp_path: Path) -> None:
    """Those counted a whole forward for each copy; where nothing newer says better they still do."""
    asked = {"copies": 8, "block": 4}
    gp.probe(classifier(), ["lr", "es"], seeds=1, out=tmp_path / "run", **asked)
    for file in (tmp_path / "run" / "units").iterdir():
        with np.load(file) as stored:
            arrays = {k: stored[k] for k in stored.files}
        arrays["equivalents"] = arrays["forwards"]
        np.savez(file, **arrays)
    old = gp.open_run(tmp_path / "run")["equivalents"]
    assert float(old.sel(copies=8, seed=0).max()) == 8
    ds = gp.probe(classifier(), "lr", seeds=2, out=tmp_path / "run", **asked)
    own = gp.probe(classifier(), ["lr", "es"], seeds=2, **asked)["equivalents"]
    np.testing.assert_array_equal(ds["equivalents"].sel(estimator="lr"), own.sel(estimator="lr"))
    np.testing.assert_array_equal(
        ds["equivalents"].sel(estimator="es", seed=0), old.sel(estimator="es", seed=0)
    )


def test_a_forward_that_cannot_be_followed_is_booked_whole_and_says_so() -> None:
    class Shy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch._C._len_torch_dispatch_stack():
                raise RuntimeError("not with you watching")
            return super().forward(x)

    problem = gp.Problem(Shy(3, 2), (torch.randn(4, 3), torch.randint(0, 2, (4,))))
    ds = gp.probe(problem, ["lr"], copies=8, block=4, seeds=2)
    assert np.array_equal(ds["equivalents"], ds["forwards"])
    assert "not with you watching" in ds.attrs["notes"]
    assert (ds["status"] == "ok").all()
