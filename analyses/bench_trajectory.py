"""What does a descent cost beyond the evaluations that the mathematics needs?

100 seeds x 1,000 steps x 3 methods on Beale's function. Beside it, in the same run: the function at all noisy points
and at the walkers, alone; and the same steps one walker after another, as estimators with directions of their own are
served (a few walkers and steps, scaled up).

    python analyses/bench_trajectory.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer

import gradprobe as gp
from gradprobe.estimators.perturbation import LR
from gradprobe.problems.landscape import find_function

METHODS = ["bp", "lr", "alr"]
START = (-3.0, 2.0)


@dataclass(frozen=True)
class Alone(LR):
    """LR with directions of its own, so that walkers are served one by one."""

    def directions(self, *given: Any) -> dict[str, torch.Tensor]:
        """Those of LR."""
        return super().directions(*given)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median of some runs."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main(
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 100,
    steps: Annotated[int, typer.Option(help="Steps of each walker.")] = 1000,
    copies: Annotated[int, typer.Option(help="Copies in a step.")] = 16,
    repeats: Annotated[int, typer.Option(help="Repeats of each time; the median counts.")] = 3,
    smoke: Annotated[bool, typer.Option("--smoke", help="3 seeds, 20 steps, once.")] = False,
) -> None:
    """Measure and print."""
    seeds, steps, repeats = (3, 20, 1) if smoke else (seeds, steps, repeats)
    options: dict[str, Any] = {"start": START, "lr": 1e-4, "copies": copies}
    beale = find_function("beale")
    noisy = torch.randn(seeds, copies, 2, dtype=torch.float64)
    walkers = noisy[:, 0].contiguous()
    few = (min(seeds, 4), min(steps, 25))

    def needed() -> None:
        """Noisy points, clean points and the recorded gradients of two methods; gradients of backprop."""
        for _ in range(steps):
            for _ in range(2):
                with torch.no_grad():
                    beale.values(noisy)
                    beale.values(walkers)
                beale.gradient(walkers)
            beale.gradient(walkers[:1])

    gp.descend("beale", METHODS, seeds=2, steps=2, **options)  # to warm up
    whole = seconds(lambda: gp.descend("beale", METHODS, seeds=seeds, steps=steps, **options), repeats)
    floor = seconds(needed, repeats)
    alone = seconds(lambda: gp.descend("beale", [Alone()], seeds=few[0], steps=few[1], **options), 1)
    alone *= 2 * seeds * steps / (few[0] * few[1])
    print(f"{seeds} seeds x {steps} steps x {len(METHODS)} methods, {torch.get_num_threads()} threads")
    print(f"descend: {whole:.2f} s")
    print(f"function and gradients alone: {floor:.2f} s; descend / that = {whole / floor:.2f}")
    print(f"LR and ALR walker by walker (scaled up): {alone:.0f} s; that / descend = {alone / whole:.0f}")


if __name__ == "__main__":
    typer.run(main)
