"""What does a capture cost, and what could it cost at least?

ResNet-5 at 3x32x32, a batch of 50, Gaussian noise on the activations of every layer. Each row of the table is a
ratio of two times (or memories) that were measured alternately in this run; medians over repeats. Captures, and the
plain forwards that they are held against, are shared out over as many processes of one thread as there are cores,
which have been started before.

    python analyses/bench_capture.py             # the table
    python analyses/bench_capture.py --profile   # where the time goes
"""

from __future__ import annotations

import cProfile
import multiprocessing
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

import gradprobe as gp
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import unit_noise
from gradprobe.probes.allocator import tune_allocator
from gradprobe.problems.networks.resnet5 import ResNet5

SIGMA = 0.01
SEEDS = 4
PRESETS = "lr,alr,es,aes,hybrid,a-hybrid"


def make_problem(batch: int = 50, width: int = 8) -> gp.Problem:
    """ResNet-5 with random weights and a batch of random images."""
    torch.manual_seed(0)
    return gp.Problem(ResNet5(width=width), (torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))))


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


def begin() -> None:
    """Set up a worker: one thread, and an allocator that keeps what it is given back."""
    torch.set_num_threads(1)
    tune_allocator()


def least(copies: int, batch: int) -> None:
    """Run the noise-free forward of every layer's suffix, a copy at a time; then draw the noise of every copy.

    Images have their channels last. On a CPU nothing plain is faster: larger batches leave the cache, the other
    layout takes twice as long, and noise drawn between the forwards makes them slower (it fills the cache).
    """
    problem = make_problem(batch)
    layout = torch.channels_last
    net = problem.module.to(memory_format=layout)
    with torch.no_grad():
        for h, after in suffixes(net, problem.inputs.contiguous(memory_format=layout)).values():
            for _ in range(copies):
                F.cross_entropy(after(h), problem.target, reduction="none")
            for k in range(copies):
                unit_noise(Gaussian(), 7, tuple(h.shape), range(k, k + 1))


def floor(crew: Executor, workers: int, copies: int, batch: int) -> float:
    """Seconds of the noise-free forwards of every suffix and of drawing the noise."""
    start = time.perf_counter()
    list(crew.map(least, [copies // workers] * workers, [batch] * workers))
    return time.perf_counter() - start


def capture(crew: Executor, copies: int, batch: int, estimators: str = "lr", **options: object) -> float:
    """Seconds of a probe of four seeds, of a quarter of the copies each."""
    problem = make_problem(batch)
    start = time.perf_counter()
    settings = {"copies": copies // SEEDS, "seeds": SEEDS, "sigma": SIGMA, "keep": "moments"} | options
    gp.probe(problem, estimators, executor=crew, **settings)
    return time.perf_counter() - start


def plain(copies: int, threads: int, batch: int) -> float:
    """Seconds of the straightforward way: the batch repeated for all copies, one full forward for each layer.

    Noise is added to the layer's output, and the weight gradient is taken over all copies at once. In this process,
    with a thread for each core.
    """
    problem = make_problem(batch)
    torch.set_num_threads(threads)
    net = problem.module
    x, target = problem.inputs.repeat(copies, 1, 1, 1), problem.target.repeat(copies)
    start = time.perf_counter()
    with torch.no_grad():
        clean = F.cross_entropy(net(problem.inputs), problem.target, reduction="none").repeat(copies)
    for layer in (net.conv1, net.conv2, net.conv3, net.conv4, net.fc):
        noise: list[torch.Tensor] = []
        inputs: list[torch.Tensor] = []

        def add(module, args, output, noise=noise, inputs=inputs):
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
    torch.set_num_threads(1)
    return time.perf_counter() - start


PEAK = """
import resource, sys
import gradprobe
from bench_capture import begin, make_problem
begin()
copies, batch = map(int, sys.argv[1:])
gradprobe.probe(make_problem(batch), "lr", copies=copies, seeds=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(copies: int, batch: int) -> float:
    """Peak resident bytes of a process of its own that captures so many copies."""
    folder = os.path.dirname(os.path.abspath(__file__))
    code = [sys.executable, "-c", PEAK, str(copies), str(batch)]
    return float(subprocess.run(code, cwd=folder, check=True, capture_output=True, text=True).stdout)


PARTS = {
    "drawing the noise": ("engine/drawing.py", "make_noise"),
    "adding it, and the suffix forwards": ("engine/vectorised.py", "one_by_one"),
    "summing noise times loss": ("estimators/blockread.py", "add"),
    "pulling back, once a block": ("estimators/blockread.py", "read"),
    "moments of the blocks": ("probes/running.py", "add"),
    "looking at the layers": ("layers/find.py", "find_layers"),
    "tracing": ("engine/graph.py", "__init__"),
}


def profile(copies: int, batch: int) -> Table:
    """Seconds and share of each part of a capture in this process."""
    engine = "loop graph channels_last x10"
    settings = {"copies": copies, "seeds": 1, "sigma": SIGMA, "keep": "moments", "engine": engine}
    gp.probe(make_problem(batch), "lr", **settings | {"copies": 20})  # the first trace loads much of torch
    problem, start = make_problem(batch), time.perf_counter()
    with cProfile.Profile() as run:
        gp.probe(problem, "lr", **settings)
    whole = time.perf_counter() - start
    times = pstats.Stats(
        run
    ).stats  # (file, line, name) -> calls, primitive calls, own seconds, seconds, callers
    table = Table("part", "seconds", "share", box=None)
    left = whole
    for part, (file, name) in PARTS.items():
        seconds = sum(t[3] for (path, _, own), t in times.items() if path.endswith(file) and own == name)
        table.add_row(part, f"{seconds:.2f}", f"{seconds / whole:.1%}")
        left -= seconds
    table.add_row("the rest", f"{left:.2f}", f"{left / whole:.1%}")
    return table


def main(
    copies: Annotated[int, typer.Option(help="Copies of each capture, over four seeds.")] = 4000,
    repeats: Annotated[int, typer.Option(help="Repeats of each ratio.")] = 3,
    workers: Annotated[int, typer.Option(help="Processes, as many as there are cores.")] = 2,
    only: Annotated[str, typer.Option(help="Numbers of the rows to measure.")] = "1,2,3,4,5,6",
    shares: Annotated[bool, typer.Option("--profile", help="Show where the time goes, instead.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="40 copies of a batch of 6, once.")] = False,
) -> None:
    """Measure the rows and print them."""
    if smoke:
        copies, repeats = 40, 1
    few, many, shown, batch = (4, 40, 20, 6) if smoke else (100, 1600, 100, 50)
    begin()
    if shares or smoke:
        Console(width=120).print(profile(copies // SEEDS, batch))
    if shares:
        return
    spawn = multiprocessing.get_context("spawn")
    table = Table("", "what", "bound", "measured", "one", "other", box=None)
    with (
        ProcessPoolExecutor(workers, spawn, begin) as crew,
        ProcessPoolExecutor(1, spawn, begin) as alone,
    ):
        rows: list[tuple[str, str, Callable[[], float], Callable[[], float]]] = [
            (
                "capture / (suffix forwards + drawing the noise), seconds",
                "at most 1.25",
                lambda: capture(crew, copies, batch),
                lambda: floor(crew, workers, copies, batch),
            ),
            (
                "straightforward way / capture, seconds per copy",
                "at least 4",
                lambda: plain(few, workers, batch) / few,
                lambda: capture(crew, copies, batch) / copies,
            ),
            (
                "six presets / lr and es, seconds",
                "at most 1.1",
                lambda: capture(crew, copies, batch, PRESETS),
                lambda: capture(crew, copies, batch, "lr,es"),
            ),
            (
                "100 points / the last point only, seconds",
                "at most 1.05",
                lambda: capture(crew, copies, batch, block=max(copies // (100 * SEEDS), 2)),
                lambda: capture(crew, copies, batch, block=copies // SEEDS),
            ),
            (
                f"peak memory at {many} copies / at {shown}, bytes",
                "at most 1.1",
                lambda: peak(many, batch),
                lambda: peak(shown, batch),
            ),
            (
                f"one worker / {workers} workers, seconds",
                "at least 1.7",
                lambda: capture(alone, copies, batch),
                lambda: capture(crew, copies, batch),
            ),
        ]
        for number in map(int, only.split(",")):
            name, bound, one, other = rows[number - 1]
            if not smoke:
                one(), other()  # to warm up
            pairs = [(one(), other()) for _ in range(repeats)]
            ratio = statistics.median(a / b for a, b in pairs)
            first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{number}. {name}: {ratio:.2f} ({bound})", flush=True)
            table.add_row(str(number), name, bound, f"{ratio:.2f}", f"{first:.4g}", f"{second:.4g}")
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
