"""Traced forwards: what they keep, what they refuse, and that tracing leaves no trace. (That they equal the naive
loop on every kind of layer is in test_oracle.)"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch._guards import TracingContext

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.streams import Block
from gradprobe.engine import preflight
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import Engine
from gradprobe.engine.preflight import agrees, traced
from gradprobe.engine.run import run
from gradprobe.estimators import draws
from gradprobe.problems.networks.resnet5 import ResNet5
from gradprobe.problems.problem import Problem
from gradprobe.store.assemble import attribute
from gradprobe.store.info import read_info
from tests.problems_small import CATALOGUE, build
from tests.truth.checks import SEED, known, layers_of
from tests.truth.trace import global_state, module_state

GRAPH = Engine("loop", graph=True)


def operations(problem: Problem, layer: int) -> list[str]:
    with problem.frozen():
        graph = traced(problem, Draw(), [layers_of(problem)[layer]], GRAPH)
    return [str(node.target) for node in graph.run.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("error", [ImportError, TypeError])
def test_a_torch_that_has_changed_its_fake_mode_traces_all_the_same(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    problem = Problem(module, (torch.randn(5, 3), torch.arange(5) % 2))
    expected = operations(problem, 0)

    def changed(self: object, fake_mode: object) -> None:
        raise error("changed")

    monkeypatch.setattr(TracingContext, "__init__", changed)
    assert operations(problem, 0) == expected


def test_only_what_the_noise_reaches_runs() -> None:
    torch.manual_seed(0)
    problem = Problem(ResNet5(), (torch.randn(4, 3, 32, 32), torch.arange(4)))
    convolutions = [sum("convolution" in name for name in operations(problem, i)) for i in range(5)]
    assert convolutions == [3, 2, 1, 0, 0]  # the noisy layer itself is computed once
    assert len(operations(problem, 4)) <= 6


def test_values_that_nothing_else_reads_are_written_over() -> None:
    torch.manual_seed(0)
    problem = Problem(ResNet5(), (torch.randn(4, 3, 32, 32), torch.arange(4)))
    names = operations(problem, 0)
    assert names.count("aten.relu_.default") == 4
    assert "aten.relu.default" not in names
    assert (
        names.count("aten.add.Tensor") == 1
    )  # noise and the clean output stay; the residual sum is written over


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_graph_gives_the_same_again_and_leaves_its_noise(name: str, joint: bool) -> None:
    """Neither constants nor noise nor inputs that are kept may be written over."""
    problem, layers = known(name)
    for unit in [layers] if joint else [[layer] for layer in layers]:
        draw = Draw(injection="joint" if joint else "layerwise", sigma=0.3)
        with problem.frozen():
            if not agrees(problem, draw, unit, GRAPH):
                continue
            graph = traced(problem, draw, unit, GRAPH)
            want = run(problem, draw, unit, Block(0, 3), SEED, "loop")
            for _ in range(2):
                got = run(problem, draw, unit, Block(0, 3), SEED, GRAPH, graph)
                assert torch.allclose(got.losses, want.losses, rtol=1e-12, atol=1e-12, equal_nan=True)
                assert all(torch.equal(eps, want.noise[site]) for site, eps in got.noise.items())
                for one, other in zip(got.segments, want.segments, strict=True):
                    assert one.inputs.keys() == other.inputs.keys()
                    for site in one.inputs:
                        for a, b in zip(tensors(one.inputs[site]), tensors(other.inputs[site]), strict=True):
                            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


class Branches(nn.Module):
    """Looks at the values of its activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x if x.sum() > 0 else -x)


def test_a_forward_that_looks_at_its_noise_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "TRACING", 0.0)
    torch.manual_seed(0)
    problem = Problem(Branches(), (torch.randn(5, 3), torch.arange(5) % 2))
    first, _ = layers_of(problem)
    assert not agrees(problem, Draw(), [first], GRAPH)
    with pytest.raises(UsageError, match="does not give what the loop gives"):
        gp.probe(problem, "lr", copies=20, engine="loop graph", layers="first")
    ds = gp.probe(problem, "lr", copies=1000, block=50, seeds=2)
    assert (ds["status"] == "ok").all()
    assert "graph" not in attribute(ds, "engines")["activations layerwise sample | first"]


class Remembers(nn.Module):
    """Writes what it has seen into a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.seen = torch.zeros(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        self.seen.copy_(x)
        return x


def test_a_forward_that_writes_its_noise_elsewhere_is_refused() -> None:
    torch.manual_seed(0)
    problem = Problem(Remembers(), (torch.randn(5, 3), torch.arange(5) % 2))
    with problem.frozen(), pytest.raises(UsageError, match="in place"):
        traced(problem, Draw(), layers_of(problem), GRAPH)


@pytest.mark.parametrize("where", ["activations", "weights"])
@pytest.mark.parametrize("name", list(CATALOGUE))
def test_tracing_leaves_no_trace(name: str, where: str) -> None:
    problem = build(name)
    draw = Draw(where, share="sample" if where == "activations" else "batch", sigma=0.1)
    for layer in layers_of(problem):
        before = module_state(problem.module), module_state(problem.twin), global_state()
        agrees(problem, draw, [layer], GRAPH)
        agrees(problem, draw, [layer], Engine("vmap", graph=True))
        assert (module_state(problem.module), module_state(problem.twin), global_state()) == before


def test_a_graph_counts_its_forwards() -> None:
    problem, layers = known("mlp")
    with problem.frozen():
        for engine in (GRAPH, Engine("vmap", graph=True)):
            graph = traced(problem, Draw(), layers[:1], engine)
            before = problem.forwards
            run(problem, Draw(), layers[:1], Block(0, 6), SEED, engine, graph)
            assert problem.forwards - before == 6


def test_a_graph_does_not_outlive_the_values() -> None:
    """Constants of a trace belong to the weights of one probe."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    problem = Problem(net, (torch.randn(6, 4), torch.arange(6) % 3))
    options = {"copies": 40, "seeds": 1, "sigma": 0.1}
    gp.probe(problem, "lr", engine="loop graph", **options)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.7)
    graph, loop = (gp.probe(problem, "lr", engine=engine, **options) for engine in ("loop graph", "loop"))
    assert np.allclose(graph["dot"], loop["dot"], rtol=1e-4, atol=1e-6)


def test_long_probes_are_traced_and_give_what_the_loop_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    problem, _ = known("mlp", torch.float32)
    monkeypatch.setattr(preflight, "TRACING", 0.0)
    options = {"copies": 600, "block": 20, "seeds": 2, "sigma": 0.1}
    ds = gp.probe(problem, ["lr", "alr", "es"], out=tmp_path / "run", **options)
    engines = read_info(tmp_path / "run").engines
    assert any("graph" in engine for engine in engines.values()), engines
    loop = gp.probe(problem, ["lr", "alr", "es"], engine="loop", **options)
    for name in ("dot", "sqnorm", "block_sqnorm"):
        assert np.allclose(ds[name], loop[name], rtol=1e-3, atol=1e-5 * float(np.abs(loop[name]).max()))


class Routes(nn.Module):
    """Reads its routing out of the activations with ``tolist``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.experts = nn.Linear(3, 2), nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        chosen = x.argmax(1).tolist()
        return torch.stack([self.experts[i](row) for i, row in zip(chosen, x, strict=True)])


class Counts(nn.Module):
    """Divides by how many activations are positive: a shape that depends on the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x) / (1 + len(x[x > 0]))


@pytest.mark.parametrize("model", [Routes, Counts])
def test_numbers_that_leave_the_trace_are_refused(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    problem = Problem(model(), (torch.randn(5, 3), torch.arange(5) % 2))
    first = layers_of(problem)[0]
    with problem.frozen(), pytest.raises(UsageError, match="cannot be traced"):
        traced(problem, Draw(), [first], GRAPH)
    assert not agrees(problem, Draw(), [first], GRAPH)


class ReadsThenWrites(nn.Module):
    """Adds a clean tensor to a noisy one, and changes the clean one afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clean = self.first(x) * 1.0
        noisy = self.second(x) + clean
        clean.relu_()
        return noisy + clean


def test_what_is_read_before_it_is_changed_is_not_folded_as_it_is_left() -> None:
    torch.manual_seed(0)
    problem = Problem(ReadsThenWrites(), (torch.randn(5, 3), torch.arange(5) % 2))
    assert not agrees(problem, Draw(sigma=0.1), [layers_of(problem)[1]], GRAPH)


def test_it_is_refused_where_in_place_operations_cannot_be_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def functionalize(function):
        raise RuntimeError("not for this function")

    monkeypatch.setattr(torch.func, "functionalize", lambda function: lambda *eps: functionalize(function))
    torch.manual_seed(0)
    problem = Problem(ReadsThenWrites(), (torch.randn(5, 3), torch.arange(5) % 2))
    with problem.frozen(), pytest.raises(UsageError, match="changes a tensor in place"):
        traced(problem, Draw(sigma=0.1), [layers_of(problem)[1]], GRAPH)


class CallsTwice(nn.Module):
    """Calls a layer once more where its output is large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).tanh()
        return self.last(self.first(x) if bool(x.abs().max() > 0.95) else x)


def test_a_trial_that_fails_is_no_reason_to_stop() -> None:
    """At unit sigma the trial calls the layer twice; at the draw's sigma nothing does."""
    torch.manual_seed(0)
    problem = Problem(CallsTwice(), (0.1 * torch.randn(5, 3), torch.arange(5) % 2))
    ds = gp.probe(problem, "lr", copies=500, seeds=2, sigma=0.01)
    assert (ds["status"] == "ok").all()


def test_an_engine_is_held_against_the_loop_at_every_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = build("mlp")
    sigmas: list[float] = []
    true = draws.choose_engine

    def choose_engine(problem, draw, layers, wish):
        sigmas.append(draw.sigma_of(layers[0].name))
        return true(problem, draw, layers, wish)

    monkeypatch.setattr(draws, "choose_engine", choose_engine)
    options = {"copies": 8, "block": 4, "seeds": 2, "engine": "loop graph"}
    gp.probe(problem, ["lr(sigma=0.01)", "lr(sigma=1)"], layers=layers_of(problem)[0].name, **options)
    assert sorted(sigmas) == [0.01, 1]
