"""The graph attention network: it trains, is probed by everything, and holds its truths."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import gradprobe as gp
from gradprobe.layers import rule_name
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.build import build
from gradprobe.problems.problem import Problem
from tests.networks import (
    DRAWS,
    Forward,
    check_engines,
    check_mean,
    check_oracle,
    check_probed,
    check_training,
    message_of,
    seeded,
)
from tests.truth.checks import layers_of

pytest.importorskip("torch_geometric", reason="the extra gnn is not installed")

LAYERS = ["first", "first.lin", "second", "second.lin"]
ATTENTION = {"first.att_src", "first.att_dst", "first.bias"}
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 4, 0], [1, 0, 2, 1, 3, 4, 0, 3]])
WEIGHTS = torch.tensor([0.5, 0.0, 0.25, 0.0, 0.25])


def tiny_graph() -> Problem:
    """Five nodes, eight edges, two of the nodes without a say in the loss."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    module = seeded(lambda: NETWORKS.get("gat")(2, 3, hidden=2, heads=2)).double()
    return Problem(module, ((x, EDGES), torch.tensor([0, 2, 1, 1, 0])), weights=WEIGHTS, name="gat")


def test_trains():
    """On features alone no classifier does well; test nodes are those without a weight in training."""
    check_training("gat", "communities", 40, 1e-2, 0.3, 0.7)


def test_attention_vectors_are_a_layer_of_their_own():
    layers = {x.name: x for x in layers_of(tiny_graph())}
    assert set(layers["first"].parameters) == ATTENTION
    assert layers["first.lin"].parameters == ("first.lin.weight",)
    assert layers["first"].contains == ("first.lin",)
    assert rule_name(tiny_graph().module.first.lin) == "linear"


def test_probed_by_everything():
    """One loss for the whole graph: nodes are no independent samples. ALR knows no signs of attention."""
    problem = gp.load_problem("gat", data="communities")
    assert problem.loss_per == "copy"
    refused = {"alr": {"first", "second"}, "a-hybrid": {"second"}}
    refused |= {"es-sample": set(LAYERS)}  # no sample has a loss of its own
    check_probed(problem, LAYERS, "copy", refused)


def test_engines():
    """vmap agrees; copies cannot be folded into one graph's nodes; torch_geometric cannot be traced."""
    check_engines(tiny_graph(), {"activations": {"vmap"}, "weights": {"vmap"}})


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.where}-{draw.injection}")
def test_naive_loop_agrees(draw):
    """One noise for all nodes is refused, and so are layers around others under joint noise."""
    if draw.where == "activations":
        draw = replace(draw, share="sample")
    check_oracle(tiny_graph(), draw)


def union(problem: Problem) -> Forward:
    """Copies as components of one graph, to the mean loss over copies."""
    (x, edges), target = problem.inputs, problem.target

    def forward(module: torch.nn.Module, copies: int) -> torch.Tensor:
        shifts = len(x) * torch.arange(copies)
        many = (edges[:, None] + shifts[:, None]).flatten(1)
        losses = F.cross_entropy(module(x.repeat(copies, 1), many), target.repeat(copies), reduction="none")
        return (losses * WEIGHTS.double().repeat(copies)).sum() / copies

    return forward


@pytest.mark.parametrize(("name", "sees"), [("first", 0.45), ("first.lin", 0.45), ("second.lin", 0.3)])
def test_mean_is_the_smoothed_gradient(name, sees):
    """Our own copies are a disjoint union of graphs; attention vectors included. False alarm 1e-6 each."""
    problem = tiny_graph()
    check_mean(problem, name, sees, forward=union(problem))


def test_nodes_without_weight_do_not_count():
    """The gradient is that of the training nodes' mean loss, whatever the labels of the others."""
    data = DATASETS.get("communities")("train")
    problem = gp.load_problem("gat", data="communities")
    with torch.no_grad():
        output = problem.module(*data.inputs)
    kept = data.weights > 0
    expected = F.cross_entropy(output[kept], data.targets[kept])
    torch.testing.assert_close(problem.total(problem.clean_losses()).float(), expected)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("digits", {}, ["model 'gat' needs features, which data 'digits' do not offer", "communities"]),
        ("communities", {"heads": 0}, ["heads must be a positive whole number, not 0"]),
        ("communities", {"hidden": "8"}, ["hidden must be a positive whole number, not '8'"]),
    ],
)
def test_bad_options_get_one_sentence(data, options, words):
    found = DATASETS.get(data)("train")
    message = message_of(lambda: build("gat", NETWORKS.get("gat"), found.offers, options, data))
    assert all(word in message for word in words), message


def test_absent_library_gets_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.delitem(sys.modules, "torch_geometric.nn", raising=False)
    message = message_of(lambda: gp.load_problem("gat", data="communities"))
    assert message == "model 'gat' needs torch_geometric: pip install \"gradprobe[gnn]\"."
