"""What a function keeps is seen wherever it keeps it, and named as in its code."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch

from gradprobe.audits.held import held, is_generator

COUNTS = {"calls": 0}


class Keeps:
    def __init__(self):
        self.total = torch.zeros(2)

    def __call__(self, module, batch):
        self.total += 1

    def method(self, module, batch):
        self.total += 1


def uses_a_global(module, batch):
    def inner():
        COUNTS["calls"] += 1

    inner()


def helped(module, batch):
    uses_a_global(module, batch)


def default(module, batch, seen=[]):  # noqa: B006 - the fault that is looked for
    seen.append(1)


def closure(kind):
    kept = {
        "torch": torch.Generator().manual_seed(0),
        "numpy": np.random.default_rng(0),
        "python": random.Random(0),
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "complex": torch.zeros(3, dtype=torch.complex64),
        "array": np.zeros(3),
        "nested": [{"a": [0]}],
        "long": list(range(100_000)),
    }[kind]

    def function(module, batch):
        if kind == "torch":
            torch.randn(1, generator=kept)
        elif kind == "numpy":
            kept.normal()
        elif kind == "python":
            kept.random()
        elif kind == "long":
            kept.append(1)
        elif kind == "nested":
            kept[0]["a"][0] += 1
        else:
            kept[0] += 1

    return function


def taking(extra, module, batch):
    extra.append(1)


@pytest.mark.parametrize(
    ("function", "places"),
    [
        (Keeps(), {"Keeps.total"}),
        (Keeps().method, {"self.total"}),
        (uses_a_global, {"COUNTS['calls']"}),
        (helped, {"COUNTS['calls']"}),
        (default, {"default of default 0[0]", "len(default of default 0)"}),
        (functools.partial(taking, []), {"argument 0[0]", "len(argument 0)"}),
        (closure("torch"), {"kept (generator)"}),
        (closure("numpy"), {"kept (generator)"}),
        (closure("python"), {"kept (generator)"}),
        (closure("half"), {"kept"}),
        (closure("complex"), {"kept"}),
        (closure("array"), {"kept"}),
        (closure("nested"), {"kept[0]['a'][0]"}),
        (closure("long"), {"len(kept)"}),
        (torch.sum, set()),
    ],
)
def test_what_changes_between_calls_is_named(function, places: set[str]) -> None:
    before = held(function)
    assert before == held(function)
    if function is not torch.sum:
        function(None, None)
    after = held(function)
    changed = {name for name in {**before, **after} if before.get(name) != after.get(name)}
    assert changed == places
    assert {name for name in changed if is_generator(name)} == {n for n in places if "generator" in n}
