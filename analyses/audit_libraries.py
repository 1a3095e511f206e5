"""Are the gradients of neighbouring libraries right? gp.audit on each of them, as it comes.

A small network, one batch. torchopt's zero-order gradients in their three methods, EvoTorch's Gaussian distributions
(whose gradient for the mean is, by that library's convention, -sigma^2 times the gradient of the loss; once as it
comes, once divided by that), BackPACK's gradients of samples, summed, and biotorch's feedback alignment, which means
to follow a field of its own. Libraries that are not there are left out; biotorch is asked in a process of its own.

    python -m venv peers && peers/bin/pip install -e ".[peers]"
    peers/bin/python analyses/audit_libraries.py --biotorch biotorch/bin/python
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import nn
from torch.func import functional_call, vmap

import gradprobe as gp

SIGMA = 0.1
MORE = 4
"""Times the calls for torchopt's forward: at 100 its length of sigma^2 has an error of about that size."""
Batch = tuple[torch.Tensor, torch.Tensor]
Gradients = Callable[[nn.Module, Batch], Any]


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        library: The library, as it is installed; "" for gradprobe itself.
        name: What of it.
        function: ``f(module, batch)``.
        right: Whether the audit should pass it.
        options: Of the audit.
        more: How many times the calls of the others.
    """

    library: str
    name: str
    function: Gradients
    right: bool
    options: dict[str, Any]
    more: int = 1


def torchopt(method: str, samples: int) -> Gradients:
    """``torchopt.diff.zero_order`` around the loss as a function of the parameters."""

    def function(module: nn.Module, batch: Batch) -> list[torch.Tensor]:
        import torchopt

        names = [name for name, _ in module.named_parameters()]
        noise = torch.distributions.Normal(0.0, 1.0)

        @torchopt.diff.zero_order(noise, method=method, argnums=(0,), num_samples=samples, sigma=SIGMA)
        def loss(values: tuple[torch.Tensor, ...]) -> torch.Tensor:
            placed = dict(zip(names, values, strict=True))
            return F.cross_entropy(functional_call(module, placed, (batch[0],)), batch[1])

        values = tuple(p.detach().clone().requires_grad_() for p in module.parameters())
        return list(torch.autograd.grad(loss(values), values))

    return function


def evotorch(kind: str, samples: int, divided: bool) -> Gradients:
    """The gradient for the mean of a distribution of EvoTorch; by -sigma^2, where that is wanted."""

    @torch.no_grad()
    def function(module: nn.Module, batch: Batch) -> torch.Tensor:
        from evotorch import distributions

        parameters = dict(module.named_parameters())
        mean = torch.cat([p.flatten() for p in parameters.values()])

        def loss(values: torch.Tensor) -> torch.Tensor:
            parts = values.split([p.numel() for p in parameters.values()])
            placed = {n: v.view_as(p) for (n, p), v in zip(parameters.items(), parts, strict=True)}
            return F.cross_entropy(functional_call(module, placed, (batch[0],)), batch[1])

        by = "num_directions" if kind.startswith("Symmetric") else "num_solutions"
        given = {"mu": mean, "sigma": torch.full_like(mean, SIGMA), "divide_mu_grad_by": by}
        search = getattr(distributions, kind)(given)
        drawn = search.sample(samples)
        found = search.compute_gradients(
            drawn, vmap(loss)(drawn), objective_sense="min", ranking_method="raw"
        )
        mu: torch.Tensor = found["mu"]
        return mu / -(SIGMA**2) if divided else mu

    return function


def backpack(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The sum of BackPACK's gradients of the samples."""
    from backpack import backpack as within
    from backpack import extend
    from backpack.extensions import BatchGrad

    loss = extend(nn.CrossEntropyLoss())(extend(module)(batch[0]), batch[1])
    with within(BatchGrad()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        loss.backward()
    return {name: p.grad_batch.sum(0) for name, p in module.named_parameters()}


BIOTORCH = """
import sys
from importlib.metadata import version
import torch
from torch import nn
from biotorch.module.biomodule import BioModule

given, found = sys.argv[1:]
torch.manual_seed(0)
options = {"constrain_weights": False, "gradient_clip": False, "init": "xavier"}
module = torch.load(given, weights_only=False)
model = BioModule(module, mode="fa", layer_config={"type": "fa", "options": options})
own = {n: p for n, p in model.module.named_parameters() if p.requires_grad and not n.endswith("_backward")}
print(">", version("biotorch"), flush=True)
for _ in sys.stdin:
    values, (x, y) = torch.load(given)
    with torch.no_grad():
        for n, p in own.items():
            p.copy_(values[n])
    loss = nn.functional.cross_entropy(model(x), y)
    torch.save(dict(zip(own, torch.autograd.grad(loss, list(own.values())))), found)
    print("> done", flush=True)
"""
"""Answers each line with the gradients of the model and batch in a file."""


class Biotorch:
    """biotorch's feedback alignment in a process of its own, whose matrices for the way back stay.

    Args:
        python: An interpreter that has biotorch.
        folder: Where files may be put.
        module: The network.
    """

    def __init__(self, python: str, folder: str, module: nn.Module) -> None:
        self.given, self.found = Path(folder) / "given.pt", Path(folder) / "found.pt"
        torch.save(module, self.given)
        words = [python, "-c", BIOTORCH, str(self.given), str(self.found)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._line()

    def __call__(self, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """The gradients."""
        assert self.process.stdin is not None
        torch.save(({n: p.detach() for n, p in module.named_parameters()}, batch), self.given)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._line()
        found: dict[str, torch.Tensor] = torch.load(self.found)
        return found

    def _line(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # biotorch prints lines of its own
            if line.startswith("> "):
                return line[2:].strip()
        raise RuntimeError("the process with biotorch ended")

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def own(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Backprop, for comparison."""
    loss = F.cross_entropy(module(batch[0]), batch[1])
    return dict(
        zip(
            dict(module.named_parameters()), torch.autograd.grad(loss, list(module.parameters())), strict=True
        )
    )


def subjects(samples: int) -> list[Subject]:
    """All that run in this process."""
    noisy = {"sigma": SIGMA, "samples": samples}
    found = [Subject("", "torch.autograd.grad", own, True, {})]
    for method, right in (("naive", True), ("forward", False), ("antithetic", True)):
        many = 32 * samples if method == "naive" else samples  # without a baseline the loss itself is noise
        options = noisy | {"samples": many}
        function, more = torchopt(method, many), MORE if method == "forward" else 1
        found.append(Subject("torchopt", f"zero_order {method}", function, right, options, more))
    for kind in ("SymmetricSeparableGaussian", "SeparableGaussian"):
        for divided in (True, False):
            name = kind + (" / -sigma^2" if divided else "")
            many = 32 * samples if kind == "SeparableGaussian" else samples
            function = evotorch(kind, many, divided)
            found.append(Subject("evotorch", name, function, divided, noisy | {"samples": many}))
    return [*found, Subject("backpack-for-pytorch", "BatchGrad, summed", backpack, True, {})]


def audited(subject: Subject, problem: gp.Problem, repeats: int, installed: str) -> dict[str, object]:
    """One row of the table; ``installed`` is the library's version."""
    found = gp.audit(
        subject.function,
        problem,
        name=subject.name,
        repeats=repeats * subject.more,
        progress=False,
        **subject.options,
    )
    print(f"\n{found}", flush=True)
    model = next(iter(found.evidence["parts"].values()))
    low, gain, high = _spread(model["gain"])
    return {
        "library": subject.library or "torch",
        "version": installed,
        "what": subject.name,
        "right": found.ok,
        "expected": subject.right,
        "cosine": model["ceiling"][0],
        "gain": gain,
        "gain low": low,
        "gain high": high,
        "problems": " ".join(found.problems),
        "not shown": " ".join(found.unshown),
        "warnings": " ".join(found.warnings),
        "calls": found.evidence["calls"],
        "seconds a call": found.evidence["seconds"],
    }


def _spread(gain: list[float]) -> tuple[float, float, float]:
    value, low, high = gain
    return low, value, high


def network() -> gp.Problem:
    """A network of 83 weights, random, on 16 random samples of 3 classes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return gp.Problem(module, (torch.randn(16, 6), torch.randint(0, 3, (16,))), "cross_entropy")


def main(
    biotorch: Annotated[str, typer.Option(help="Python of an environment that has biotorch.")] = "",
    samples: Annotated[
        int, typer.Option(help="Samples of a call (32 times as many without a baseline).")
    ] = 32,
    repeats: Annotated[int, typer.Option(help="Calls with each of ten seeds.")] = 10,
    out: Annotated[Path, typer.Option(help="Folder for audit_libraries.csv.")] = Path("figures/peers"),
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Four samples and three calls for each seed.")
    ] = False,
) -> None:
    """Audit what is installed, print what is found and write the table."""
    torch.set_num_threads(1)
    samples, repeats = (4, 3) if smoke else (samples, repeats)
    problem, rows = network(), []
    for subject in subjects(samples):
        try:
            installed = version(subject.library or "torch")
        except PackageNotFoundError:
            print(
                f"{subject.library} is not installed: {subject.name} is left out (pip install -e '.[peers]')."
            )
            continue
        rows.append(audited(subject, problem, repeats, installed))
    if biotorch:
        with tempfile.TemporaryDirectory() as folder:
            function = Biotorch(biotorch, folder, problem.module)
            subject = Subject("biotorch", "BioModule fa", function, True, {"target": "surrogate"})
            rows.append(audited(subject, problem, repeats, function.version))
            function.close()
    else:
        print("biotorch is left out: say where it is with --biotorch PYTHON.")
    table = pd.DataFrame(rows)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "audit_libraries.csv", index=False, float_format="%.6g")
    print(f"\n{table.iloc[:, :9].to_string(index=False, float_format='%.4g')}")
    wrong = table["what"][table["right"] != table["expected"]].tolist()
    print(f"not as expected: {', '.join(wrong)}" if wrong else "all as expected")
    print(f"wrote {out / 'audit_libraries.csv'}")


if __name__ == "__main__":
    typer.run(main)
