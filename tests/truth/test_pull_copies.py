"""One vectorised pull-back of many calls equals one after the other, and what cannot be vectorised is looped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.estimators import pulling
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block
from gradprobe.estimators.readout import ReadOut
from gradprobe.layers.generic import Generic
from gradprobe.probes.checks import layers_of
from gradprobe.problems.problem import Problem
from tests.problems_small import build

SEED = Streams(0, 5)


def _read(problem: Problem, engine: str, injection: str = "layerwise", encode: str = "exact") -> dict:
    layers = layers_of(problem)
    units = [layers] if injection == "joint" else [[x] for x in layers]
    found: dict[str, torch.Tensor] = {}
    for unit in units:
        reading = Reading(problem, Draw(injection=injection), unit, [ReadOut("clean", encode)], SEED)
        found |= read_block(reading, Block(0, 6), engine).directions[0]
    return found


@pytest.mark.parametrize("encode", ["exact", "sign"])
@pytest.mark.parametrize("name", ["lstm", "lstm-outputs", "gru", "mlp"])
def test_it_equals_one_call_after_the_other(name: str, encode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = Generic.pull_back_copies
    monkeypatch.setattr(Generic, "pull_back_copies", lambda *a: asked.append(a) or real(*a))
    found = {e: _read(build(name), e, "joint", encode) for e in ("loop", "vmap")}
    assert asked
    monkeypatch.setattr(pulling._Calls, "agree", lambda *a: False)
    want = _read(build(name), "loop", "joint", encode)
    for directions in found.values():
        for parameter, direction in want.items():
            assert torch.allclose(directions[parameter], direction, rtol=1e-10, atol=1e-14)


def test_all_copies_and_steps_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = Generic.pull_back_copies
    monkeypatch.setattr(Generic, "pull_back_copies", lambda s, c: calls.append(len(c.inputs)) or real(s, c))
    problem = build("lstm")
    layer = next(x for x in layers_of(problem) if x.calls > 2)
    reading = Reading(problem, Draw(), [layer], [ReadOut()], SEED)
    for block in range(2):
        read_block(reading, Block(block, 6), "vmap")
    assert calls == [2, 6 * (layer.calls - 1), 6 * (layer.calls - 1)]  # the first: that two of them agree


class Odd(nn.Module):
    """Uses a number of its input as a number, which torch cannot vectorise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice as much where the sum is positive."""
        return self.weight * x * (2.0 if x.sum().item() > 0 else 1.0)


def test_what_cannot_be_vectorised_is_looped() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), Odd(), nn.Linear(3, 2)).double()
    problem = Problem(module, (torch.randn(5, 3).double(), torch.arange(5) % 2))
    assert all(bool(d.isfinite().all()) for d in _read(problem, "loop", "joint").values())
    layer = layers_of(problem)[1]
    inputs = [("1", (torch.randn(5, 3).double(),), {}) for _ in range(4)]
    cotangents = torch.randn(4, 5, 3).double()
    found = pulling.pull_copies(problem, layer, inputs, cotangents, False)["1.weight"]
    want = sum(
        (c * x * (2.0 if x.sum() > 0 else 1.0)).sum(0)
        for (_, (x,), _), c in zip(inputs, cotangents, strict=True)
    )
    assert torch.allclose(found, want)


def test_calls_are_alike_but_for_the_numbers_of_their_tensors() -> None:
    x = torch.randn(2, 3)
    one = ("a", (x, 1), {"k": None})
    assert pulling.alike(one, ("a", (x + 1, 1), {"k": None}))
    for other in (
        ("b", (x, 1), {"k": None}),
        ("a", (x, 2), {"k": None}),
        ("a", (x[:1], 1), {"k": None}),
        ("a", (x.double(), 1), {"k": None}),
    ):
        assert not pulling.alike(one, other)
