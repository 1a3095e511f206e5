"""Does feedback alignment agree with biotorch's, and how fast is it?

``gp.estimate(problem, "fa")`` and biotorch's ``BioModule(mode="fa")`` get the same weights, batch and matrices on the
way back, in processes of one thread that take turns. biotorch needs an environment of its own, with torch as here:

    python -m venv biotorch
    biotorch/bin/pip install torch numpy
    biotorch/bin/pip install --no-deps biotorch==0.0.16
    python analyses/bench_feedback.py --biotorch biotorch/bin/python
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from bench_peers import BATCH, CASES, make_case, median_interval, timed
from torch import nn

import gradprobe as gp
from gradprobe.estimators.feedback_alignment import FeedbackAlignment

OTHER = """
import contextlib, io, sys, time
import torch
from torch import nn
from biotorch.module.biomodule import BioModule

torch.set_num_threads(1)
given, found = sys.argv[1:]
case = torch.load(given, weights_only=False)
options = {"constrain_weights": False, "gradient_clip": False, "init": "xavier"}
with contextlib.redirect_stdout(io.StringIO()):  # it prints
    model = BioModule(case["model"], mode="fa", layer_config={"type": "fa", "options": options})
for name, module in model.module.named_modules():
    if hasattr(module, "weight_backward"):
        module.weight_backward = nn.Parameter(case["back"][name + ".weight"], requires_grad=False)
weights = {n: p for n, p in model.module.named_parameters() if p.requires_grad and not n.endswith("_backward")}

def gradient():
    loss = nn.functional.cross_entropy(model(case["x"]), case["y"])
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))

torch.save(gradient(), found)
for _ in sys.stdin:
    start = time.process_time()
    gradient()
    print(time.process_time() - start, flush=True)
"""
"""Answers each line with the seconds of one backward pass."""


class Other:
    """biotorch's feedback alignment of a case, in a process of its own.

    Args:
        python: An interpreter that has biotorch.
        case: Model, batch and matrices for the way back.
        folder: Where files may be put.
    """

    def __init__(self, python: str, case: dict[str, object], folder: str) -> None:
        given, found = Path(folder) / "case.pt", Path(folder) / "found.pt"
        torch.save(case, given)
        words = [python, "-c", OTHER, str(given), str(found)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds()
        self.gradient = torch.load(found)

    def seconds(self) -> float:
        """Seconds of one backward pass."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def compare(name: str, python: str, rounds: int, batch: int) -> dict[str, object]:
    """The largest difference relative to the largest entry, and the ratio of times."""
    model, x, y = make_case(name, batch)
    problem, method = gp.Problem(model, (x, y)), FeedbackAlignment()
    back = {n: method.matrix(n, p.detach()).to(p.dtype) for n, p in model.named_parameters() if p.ndim > 1}
    with tempfile.TemporaryDirectory() as folder:
        other = Other(python, {"model": model, "x": x, "y": y, "back": back}, folder)
        found = gp.estimate(problem, "fa")
        pairs = [(found[n], other.gradient[n]) for n in found]
        pairs_of_seconds = [
            (timed(lambda: gp.estimate(problem, "fa"))[0], other.seconds()) for _ in range(rounds)
        ]
        other.process.communicate()
    mine, theirs = (1e3 * median_interval([p[i] for p in pairs_of_seconds])[0] for i in (0, 1))
    ratio, low, high = median_interval([a / b for a, b in pairs_of_seconds])
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    row: dict[str, object] = {"case": name, "difference": difference, "ms": mine, "biotorch ms": theirs}
    return row | {"ratio": ratio, "low": low, "high": high, "rounds": rounds}


def main(
    biotorch: Annotated[str, typer.Option(help="Python of an environment that has biotorch.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of each case.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder for feedback.csv.")] = Path("figures/peers"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Two rounds of a batch of 8.")] = False,
) -> None:
    """Compare, print and write the table; without biotorch only gradprobe's own check runs."""
    torch.set_num_threads(1)
    rounds, batch = (2, 8) if smoke else (rounds, BATCH)
    if not biotorch:
        model, x, y = make_case("MLP small", batch)
        exact = gp.estimate(gp.Problem(model, (x, y)), "fa(feedback=weights)")
        slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
        same = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(exact.values(), slopes, strict=True))
        print(f"With the weights themselves on the way back it is backprop: {same}.")
        print("biotorch is left out: say where it is with --biotorch PYTHON.")
        sys.exit(0 if same else 1)
    table = pd.DataFrame([compare(name, biotorch, rounds, batch) for name in CASES])
    print(table.to_string(index=False, float_format="%.3g"))
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "feedback.csv", index=False)


if __name__ == "__main__":
    typer.run(main)
