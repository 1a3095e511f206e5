"""What does a capture cost, and what could it cost at least?

ResNet-5 at 3x32x32, a batch of 50, Gaussian noise on the activations of every layer. Each row of the table is a
ratio of two times (or memories) that were measured alternately in this run; medians over repeats.

    python analyses/bench_capture.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from gradprobe.probes.allocator import tune_allocator
from rich.console import Console
from rich.table import Table

import gradprobe as gp
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import unit_noise

SIGMA = 0.01
PRESETS = "lr,alr,es,aes,hybrid,a-hybrid"


def make_problem(batch: int = 50, width: int = 8) -> gp.Problem:
    """ResNet-5 with random weights and a batch of random images."""
    torch.manual_seed(0)
    net = gp.problems.networks.NETWORKS.get("resnet5")(width=width)
    return gp.Problem(net, (torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))))


def suffixes(net: torch.nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, Callable]]:
    """Clean output of each layer, and the plain forward of what comes after it."""

    def after4(h: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return net.fc(F.max_pool2d(F.relu(h) + skip, 4).flatten(1))

    def after3(h: torch.Tensor) -> torch.Tensor:
        skip = F.relu(h)
        return after4(net.conv4(skip), skip)

    def after2(h: torch.Tensor) -> torch.Tensor:
        return after3(net.conv3(F.max_pool2d(F.relu(h), 2)))

    def after1(h: torch.Tensor) -> torch.Tensor:
        return after2(net.conv2(F.relu(h)))

    h1 = net.conv1(x)
    h2 = net.conv2(F.relu(h1))
    h3 = net.conv3(F.max_pool2d(F.relu(h2), 2))
    skip = F.relu(h3)
    h4 = net.conv4(skip)
    h5 = after4(h4, skip)
    return {
        "conv1": (h1, after1),
        "conv2": (h2, after2),
        "conv3": (h3, after3),
        "conv4": (h4, lambda h: after4(h, skip)),
        "fc": (h5, lambda h: h),
    }


def floor(problem: gp.Problem, copies: int, layout: torch.memory_format) -> float:
    """Seconds of the noise-free forwards of every layer's suffix, plus those of drawing the noise.

    A copy at a time, in the faster of two memory layouts: on a CPU nothing plain is faster.
    """
    x, target = problem.inputs.contiguous(memory_format=layout), problem.target
    with torch.no_grad():
        parts = suffixes(problem.module, x)
        start = time.perf_counter()
        for h, after in parts.values():
            for _ in range(copies):
                F.cross_entropy(after(h), target, reduction="none")
        for h, _ in parts.values():
            for k in range(copies):
                unit_noise(Gaussian(), 7, tuple(h.shape), range(k, k + 1))
        return time.perf_counter() - start


def capture(problem: gp.Problem, copies: int, estimators: str = "lr", **options: object) -> float:
    """Seconds of a probe."""
    start = time.perf_counter()
    gp.probe(problem, estimators, copies=copies, seeds=1, sigma=SIGMA, keep="moments", **options)
    return time.perf_counter() - start


def plain(problem: gp.Problem, copies: int) -> float:
    """Seconds of the straightforward way: the batch repeated for all copies, one full forward for each layer.

    Noise is added to the layer's output, and the weight gradient is taken over all copies at once.
    """
    net, batch = problem.module, len(problem.target)
    x, target = problem.inputs.repeat(copies, 1, 1, 1), problem.target.repeat(copies)
    start = time.perf_counter()
    with torch.no_grad():
        clean = F.cross_entropy(net(problem.inputs), problem.target, reduction="none").repeat(copies)
    for layer in (net.conv1, net.conv2, net.conv3, net.conv4, net.fc):
        noise: list[torch.Tensor] = []
        inputs: list[torch.Tensor] = []

        def add(module, args, output, noise=noise, inputs=inputs):  # type: ignore[no-untyped-def]
            inputs.append(args[0])
            noise.append(torch.randn_like(output))
            return output + SIGMA * noise[0]

        handle = layer.register_forward_hook(add)
        with torch.no_grad():
            losses = F.cross_entropy(net(x), target, reduction="none")
        handle.remove()
        weight = (losses - clean) / (SIGMA * copies * batch)
        cotangent = weight.view(-1, *[1] * (noise[0].ndim - 1)) * noise[0]
        torch.autograd.grad(layer(inputs[0]), list(layer.parameters()), cotangent)
    return time.perf_counter() - start


def ratio(one: Callable[[], float], other: Callable[[], float], repeats: int) -> tuple[float, float, float]:
    """Median of one / other over alternating repeats, and both medians."""
    pairs = [(one(), other()) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return (
        statistics.median(ratios),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


PEAK = """
import resource, sys
from bench_capture import capture, make_problem
import torch
torch.set_num_threads(1)
capture(make_problem(), int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(copies: int) -> float:
    """Peak resident bytes of a process of its own that captures so many copies."""
    folder = os.path.dirname(os.path.abspath(__file__))
    code = [sys.executable, "-c", PEAK, str(copies)]
    return float(subprocess.run(code, cwd=folder, check=True, capture_output=True, text=True).stdout)


def shared_out(problem: gp.Problem, copies: int, workers: int) -> float:
    """Seconds of a probe of four seeds by processes of one thread each, their start included."""
    start = time.perf_counter()
    gp.probe(problem, "lr", copies=copies, seeds=4, sigma=SIGMA, keep="moments", workers=workers)
    return time.perf_counter() - start


def main(
    copies: Annotated[int, typer.Option(help="Copies of each capture.")] = 1000,
    repeats: Annotated[int, typer.Option(help="Repeats of each ratio.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
    smoke: Annotated[bool, typer.Option("--smoke", help="20 copies, once.")] = False,
) -> None:
    """Measure all rows and print them."""
    if smoke:
        copies, repeats, threads = 20, 1, 1
    tune_allocator()
    torch.set_num_threads(threads)
    problem = make_problem()
    few = max(copies // 10, 10)
    layouts = (torch.channels_last, torch.contiguous_format)
    layout = min(layouts, key=lambda m: floor(problem, 5, m))
    rows = [
        (
            "capture / (suffix forwards + drawing the noise)",
            "at most 1.25",
            ratio(lambda: capture(problem, copies), lambda: floor(problem, copies, layout), repeats),
        ),
        (
            "straightforward way / capture, per copy",
            "at least 4",
            ratio(lambda: plain(problem, few) / few, lambda: capture(problem, copies) / copies, repeats),
        ),
        (
            "six presets / lr and es",
            "at most 1.1",
            ratio(
                lambda: capture(problem, copies, PRESETS), lambda: capture(problem, copies, "lr,es"), repeats
            ),
        ),
        (
            "100 points / the last point only",
            "at most 1.05",
            ratio(
                lambda: capture(problem, copies, block=max(copies // 100, 2)),
                lambda: capture(problem, copies, block=copies),
                repeats,
            ),
        ),
        (
            f"peak memory at {16 * few} copies / at {few}",
            "at most 1.1",
            ratio(lambda: peak(16 * few), lambda: peak(few), 1),
        ),
        (
            "one worker / two workers",
            "at least 1.7",
            ratio(lambda: shared_out(problem, copies, 1), lambda: shared_out(problem, copies, 2), repeats),
        ),
    ]
    table = Table("what", "bound", "measured", "one", "other", box=None)
    for name, bound, (median, one, other) in rows:
        table.add_row(name, bound, f"{median:.2f}", f"{one:.3g}", f"{other:.3g}")
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
