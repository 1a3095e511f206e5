"""What only a first call in a process does, such as importing libraries, leaves no trace either."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import random
import numpy as np
import torch
import gradprobe as gp

def state():
    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()

x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
model = torch.nn.Linear(3, 2)
before = state()
problem = gp.Problem(model, batch=(x, y), loss="cross_entropy")
assert state() == before, "Problem"
{call}
assert state() == before, "the call"
"""


@pytest.mark.parametrize(
    "call",
    [
        'gp.probe(problem, ["lr", "es"], copies=8, block=4, seeds=1, reference=("bp", "smoothed"))',
        'gp.probe(problem, ["lr"], copies=8, block=4, seeds=1, progress=True)',
        'gp.estimate(problem, "lr", copies=8); gp.doctor(problem)',
    ],
)
def test_the_first_call_of_a_process_leaves_random_states_alone(call: str) -> None:
    run = [sys.executable, "-c", CODE.format(call=call)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
