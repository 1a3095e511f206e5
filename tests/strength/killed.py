"""The probe that tests stop: a server imports this file once and forks a process for every start."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import torch

import gradprobe as gp
from gradprobe.probes import unit

torch.set_num_threads(1)
PROBLEM = gp.load_problem(checkpoint="early", batch_size=8)


def run(out: str, answers: Connection | None = None) -> None:
    """Say that it is ready, probe, and say how many blocks were computed; exit as the command does."""
    true, count = unit.read_blocks, 0

    def counted(*given):
        nonlocal count
        for read in true(*given):
            count += 1
            yield read

    unit.read_blocks = counted
    options = {"copies": 60, "block": 1, "seeds": 3, "layers": ["conv4", "fc"], "out": out}
    if answers is not None:
        answers.send("ready")
    ds = gp.probe(PROBLEM, "lr,alr,es", **options)
    if answers is not None:
        answers.send(count)
    sys.exit(130 if "stopped" in ds.attrs else 0)
