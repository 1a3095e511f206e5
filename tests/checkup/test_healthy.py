"""Models without a fault get no warning, and every problem of the catalogue gets the verdict that it deserves."""

from __future__ import annotations

import re
import time

import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.checkup import CHECKS
from tests.checkup.models import batch, cnn, encoder, net, of, seeded
from tests.problems_small import CATALOGUE, build
from tests.truth.trace import snapshot

HEALTHY = {
    "mlp": lambda: gp.Problem(net(), batch(6, 4)),
    "relu-mlp": lambda: gp.Problem(
        seeded(lambda: nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3))), batch(6, 4)
    ),
    "cnn": lambda: gp.Problem(cnn(), batch(6, 3, 12, 12)),
    "encoder": lambda: gp.Problem(encoder(), batch(6, 5, 8)),
    "resnet5": lambda: gp.load_problem(checkpoint="trained", batch_size=16),
    "untrained": lambda: gp.load_problem(batch_size=8),
}

DESERVED = {
    "train-batch-norm": {("samples", None): "BatchNorm"},
    "never-runs": {("unused", None): "never runs"},
    "embedding": {("backprop", "0"): "padding_idx"},
    "max-norm": {("backprop", "0"): "max_norm"},
    "functional-weight": {("calls", "fc"): "also act past", ("calls", "only"): "F.linear"},
    "fused-rnn": {("calls", "rnn"): "one fused operation"},
    "parameter-list": {("calls", "scales"): "never called"},
}
"""Problem -> what is warned of, and a word of the sentence; nothing is said of the others."""


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_healthy_models_are_all_ok(name: str, quick: bool) -> None:
    found = gp.doctor(HEALTHY[name](), quick=quick)
    assert found.ok, found
    assert {f.check for f in found.findings} >= {"repeat", "finite", "state", "samples", "calls", "noise"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
def test_verdicts_of_the_catalogue(name: str, dtype: torch.dtype) -> None:
    looks = (False, True) if dtype == torch.float32 else (True,)
    for quick in looks:
        found = gp.doctor(build(name, dtype), quick=quick)
        assert not found.refused
        deserved = DESERVED.get(name, {})
        assert {(f.check, f.layer) for f in found.warnings} == deserved.keys(), found
        for finding in found.warnings:
            assert deserved[finding.check, finding.layer] in finding.sentence


@pytest.mark.parametrize("name", ["cnn", "train-batch-norm", "attention", "lstm", "tied", "max-norm"])
def test_a_look_leaves_no_trace(name: str) -> None:
    problem = build(name)
    before = snapshot(problem)
    gp.doctor(problem)
    assert snapshot(problem) == before


def test_sentences_are_one_line_each() -> None:
    for name in ("cnn", "embedding", "functional-weight", "train-batch-norm"):
        for finding in gp.doctor(build(name)).findings:
            assert "\n" not in finding.sentence
            assert finding.sentence.endswith(".")
            assert finding.status == "ok" or finding.layer is None or repr(finding.layer) in finding.sentence


def test_text_table_and_dictionary_say_the_same() -> None:
    found = gp.doctor(build("functional-weight"))
    text = re.sub(r"\s+", " ", str(found))
    table, plain = found.table(), found.to_dict()
    assert len(table) == len(plain["findings"]) == len(found.findings)
    assert set(table.columns) == {"check", "layer", "status", "sentence", "value"}
    for finding in found.warnings:
        assert finding.sentence in text
        assert finding.sentence.replace("'", "&#x27;") in found._repr_html_()
    for word in ("layer", "calls", "noise", "rule", "backprop", "precision", "2 warnings, 0 refused"):
        assert word in text


def test_every_check_is_registered_with_its_place() -> None:
    assert {e.meta["per"] for e in CHECKS} == {"problem", "layer"}
    orders = [e.meta["order"] for e in CHECKS]
    assert len(set(orders)) == len(orders)


def test_a_quick_look_costs_few_forwards_and_little_time() -> None:
    """At most four forwards a layer and draw, and six for all; the time holds with the machine half as fast."""
    problem = build("mlp", torch.float32)
    gp.doctor(problem, quick=True)
    best = min(_look_costs(problem) for _ in range(5))
    assert best < 15e-3


def _look_costs(problem: gp.Problem) -> float:
    from gradprobe.core.hooks import untouched_globals
    from gradprobe.estimators.base import make_all
    from gradprobe.probes.checks import layers_of
    from gradprobe.probes.consult import preflight
    from gradprobe.probes.request import backprop

    with untouched_globals(), problem.frozen():
        problem.refresh()
        layers = layers_of(problem)
        gradient = backprop(problem, layers)
        forwards, start = problem.forwards, time.perf_counter()
        assert preflight(problem, make_all(["lr", "alr", "es"]), layers, gradient)["doctor"] == []
        spent = time.perf_counter() - start
    assert problem.forwards - forwards <= 4 * len(layers) + 6
    return spent


def test_shared_and_frozen_layers_and_the_mode_are_said() -> None:
    assert "up = down" in of(gp.doctor(build("tied")), "tied").sentence
    assert "'0'" in of(gp.doctor(build("frozen-parameter")), "frozen").sentence
    assert of(gp.doctor(HEALTHY["cnn"]()), "mode").value["off"] == ["8"]


def test_coverage_is_the_share_of_the_squared_gradient() -> None:
    problem = build("mlp")
    values = problem.parameters
    leaves = {n: v.clone().requires_grad_() for n, v in values.items()}
    squares = dict(
        zip(
            leaves,
            (float((g**2).sum()) for g in problem.gradient(leaves, list(leaves.values()))),
            strict=True,
        )
    )
    share = (squares["0.weight"] + squares["0.bias"]) / sum(squares.values())
    assert of(gp.doctor(problem, layers="0"), "coverage").value["coverage"] == pytest.approx(share)
