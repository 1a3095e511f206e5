"""How fast is an estimate beside neighbouring libraries that do the same?

One evolution-strategies gradient from 256 evaluations (128 antithetic pairs, sigma 0.01, a batch of 64) of three
networks: by ``gp.estimate`` as it comes, by torchopt, by EvoTorch and by plain ``torch.func.vmap``. One process, one
thread. A library is timed only after a gate: the cosine with backprop must be what so many pairs give of a linear
loss, ``sqrt(k / (k + P + 1))``, and the length that of the gradient. Then the weights move a little before each
round, as in training, each library runs once a round in random order, and the ratio is that of gradprobe's time to
the fastest peer's in the same round: its median, with a 95 % interval from the order of the rounds (binomial).

    python -m venv peers && peers/bin/pip install -e ".[peers]"
    peers/bin/python analyses/bench_peers.py
"""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from scipy.stats import binom
from torch import nn
from torch.func import functional_call, vmap

import gradprobe as gp

SIGMA, BATCH = 0.01, 64
Way = Callable[[], torch.Tensor]
"""A gradient of all parameters, flat."""


def perceptron(*sizes: int) -> nn.Module:
    """Linear layers of these sizes with ReLU between them."""
    pairs = zip(sizes, sizes[1:], strict=False)
    layers = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def convolutional() -> nn.Module:
    """LeNet's two convolutions, narrower."""
    first = [nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 10))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP small": (lambda: perceptron(64, 32, 10), (64,)),
    "MLP large": (lambda: perceptron(784, 256, 128, 10), (784,)),
    "CNN": (convolutional, (1, 28, 28)),
}


def make_case(name: str, batch: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network with random weights and a batch of random inputs and classes."""
    torch.manual_seed(0)
    make, shape = CASES[name]
    return make(), torch.randn(batch, *shape), torch.randint(0, 10, (batch,))


def flat(model: nn.Module) -> torch.Tensor:
    """All parameters, one after another."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def vectorised(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Losses ``[n]`` of parameters ``[n, P]``."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(values: torch.Tensor) -> torch.Tensor:
        parts = values.split([math.prod(s) for s in shapes])
        placed = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, placed, (x,)), y)

    return vmap(loss)


def gradprobe_way(model: nn.Module, x: torch.Tensor, y: torch.Tensor, copies: int) -> Way:
    """``gp.estimate`` with a seed of its own at each call; it finds its engine."""
    problem, calls = gp.Problem(model, (x, y)), iter(range(10**9))
    names = [name for name, _ in model.named_parameters()]
    options = {"injection": "joint", "antithetic": True, "sigma": SIGMA}

    def way() -> torch.Tensor:
        found = gp.estimate(problem, "es", copies=copies, block=copies, seed=next(calls), **options)
        return torch.cat([found[name].flatten() for name in names])

    return way


def torchopt_way(model: nn.Module, x: torch.Tensor, y: torch.Tensor, copies: int) -> Way:
    """The antithetic zero-order gradient of torchopt (its ``forward`` is wrong)."""
    import torchopt

    names = [name for name, _ in model.named_parameters()]
    noise = torch.distributions.Normal(0.0, 1.0)

    @torchopt.diff.zero_order(noise, method="antithetic", argnums=(0,), num_samples=copies // 2, sigma=SIGMA)
    def loss(values: tuple[torch.Tensor, ...]) -> torch.Tensor:
        placed = dict(zip(names, values, strict=True))
        return F.cross_entropy(functional_call(model, placed, (x,)), y)

    def way() -> torch.Tensor:
        values = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(values), values)])

    return way


def evotorch_way(model: nn.Module, x: torch.Tensor, y: torch.Tensor, copies: int) -> Way:
    """EvoTorch's symmetric Gaussian, with its vectorised evaluation; its gradient is -sigma^2 times that of ES."""
    from evotorch.distributions import SymmetricSeparableGaussian

    losses = vectorised(model, x, y)

    @torch.no_grad()
    def way() -> torch.Tensor:
        mu = flat(model)
        search = SymmetricSeparableGaussian(
            {"mu": mu, "sigma": torch.full_like(mu, SIGMA), "divide_mu_grad_by": "num_directions"}
        )
        samples = search.sample(copies)
        found = search.compute_gradients(
            samples, losses(samples), objective_sense="min", ranking_method="raw"
        )
        return found["mu"] / -(SIGMA**2)

    return way


def vmap_way(model: nn.Module, x: torch.Tensor, y: torch.Tensor, copies: int) -> Way:
    """What one writes oneself with ``torch.func``."""
    losses = vectorised(model, x, y)

    @torch.no_grad()
    def way() -> torch.Tensor:
        mu = flat(model)
        eps = torch.randn(copies // 2, len(mu))
        plus, minus = losses(torch.cat([mu + SIGMA * eps, mu - SIGMA * eps])).chunk(2)
        return (plus - minus) @ eps / (copies * SIGMA)

    return way


PEERS = {"torchopt": torchopt_way, "evotorch": evotorch_way, "torch.func vmap": vmap_way}


def find_ways(name: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, copies: int) -> dict[str, Way]:
    """gradprobe, and every peer that is installed."""
    ways = {"gradprobe": gradprobe_way(model, x, y, copies)}
    for peer, make in PEERS.items():
        try:
            ways[peer] = make(model, x, y, copies)
        except ImportError:
            print(f"{name}: {peer} is not installed and left out (pip install -e '.[peers]').")
    return ways


def gate(found: list[torch.Tensor], truth: torch.Tensor, pairs: int) -> tuple[float, float, bool]:
    """Mean cosine with backprop, mean gain along it, and whether both are what they should be.

    A gradient from k pairs has the gain chi2(k)/k, and the cosine of a linear loss up to O(1/P), with a standard
    deviation of 1/sqrt(2P); smoothing may take a seventh of it. Four standard errors are left to chance. Half the
    pairs have 0.71 of the cosine, so that with the calls that are looked at by default less work does not pass.
    """
    cosines = [float(F.cosine_similarity(g, truth, 0)) for g in found]
    gains = [float(g @ truth / (truth @ truth)) for g in found]
    theory, calls = math.sqrt(pairs / (pairs + len(truth) + 1)), len(found)
    cosine, gain = statistics.mean(cosines), statistics.mean(gains)
    chance = 4 * math.sqrt(1 / (2 * len(truth) * calls))
    right = 0.85 * theory - chance <= cosine <= 1.1 * theory + chance
    long = abs(gain - 1) <= 0.25 + 4 * math.sqrt(2 / (pairs * calls))
    return cosine, gain, right and long


def timed(way: Way) -> tuple[float, torch.Tensor]:
    """Seconds of the processor (on an idle machine the clock's, as there is one thread), and what it gave."""
    start = time.process_time()
    found = way()
    return time.process_time() - start, found


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval from order statistics, whatever the distribution."""
    ordered, n = sorted(values), len(values)
    low = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def race(ways: Mapping[str, Way], model: nn.Module, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; the order is another in every round, and so are the weights, a little.

    Peers that took more than three times as long as the fastest of them in three rounds stay out of the others.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    chance, noise = random.Random(0), torch.Generator().manual_seed(0)
    running = list(ways)
    for number in range(rounds):
        if number == 3:
            typical = {peer: statistics.median(taken) for peer, taken in seconds.items()}
            best = min((t for peer, t in typical.items() if peer != "gradprobe"), default=math.inf)
            running = [peer for peer in ways if peer == "gradprobe" or typical[peer] <= 3 * best]
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=noise), alpha=1e-6)
        for name in chance.sample(running, len(running)):
            seconds[name].append(timed(ways[name])[0])
    return seconds


def compare(name: str, rounds: int, calls: int, copies: int, batch: int) -> list[dict[str, object]]:
    """One row for each library, with the ratio in gradprobe's."""
    model, x, y = make_case(name, batch)
    ways = find_ways(name, model, x, y, copies)
    truth = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    first = {peer: timed(way)[0] for peer, way in ways.items()}
    rows: list[dict[str, object]] = []
    for peer, way in list(ways.items()):
        found = [way() for _ in range(calls)]
        cosine, gain, passed = gate(found, torch.cat([g.flatten() for g in truth]), copies // 2)
        rows.append({"case": name, "library": peer, "cosine": cosine, "gain": gain, "gate": passed})
        if not passed:
            print(f"{name}: {peer} fails the gate (cosine {cosine:.4f}, gain {gain:.3g}) and is not timed.")
            del ways[peer]
    seconds = race(ways, model, rounds)
    rivals = [each for peer, each in seconds.items() if peer != "gradprobe"]
    for row in rows:
        mine = seconds.get(str(row["library"]), [math.nan])
        row |= {"parameters": flat(model).numel(), "ms": 1e3 * statistics.median(mine), "rounds": len(mine)}
        row["first_ms"] = 1e3 * first[str(row["library"])]
        if row["library"] == "gradprobe" and rivals and "gradprobe" in seconds:
            ratios = [a / min(b[i] for b in rivals if i < len(b)) for i, a in enumerate(mine)]
            row["ratio"], row["low"], row["high"] = median_interval(ratios)
    return rows


def versions() -> dict[str, str]:
    """Versions of what is compared."""
    found = {}
    for name in ("gradprobe", "torch", "torchopt", "evotorch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of each case.")] = 40,
    calls: Annotated[int, typer.Option(help="Gradients that the gate looks at.")] = 16,
    only: Annotated[str, typer.Option(help="Cases, separated by commas.")] = ",".join(CASES),
    out: Annotated[Path, typer.Option(help="Folder for peers.csv and peers.json.")] = Path("figures/peers"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Two rounds of 16 copies, batch 8.")] = False,
) -> None:
    """Measure, print and write the tables."""
    torch.set_num_threads(1)
    copies, batch = (16, 8) if smoke else (256, BATCH)
    rounds, calls = (2, 2) if smoke else (rounds, calls)
    rows = [row for name in only.split(",") for row in compare(name, rounds, calls, copies, batch)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.4g"))
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "peers.csv", index=False)
    whole = {"versions": versions(), "copies": copies, "batch": batch, "sigma": SIGMA, "rows": rows}
    (out / "peers.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
