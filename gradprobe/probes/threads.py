"""How many threads torch should use for a problem: more are slower where each operation is small."""

from __future__ import annotations

import time

import torch

from gradprobe.problems.problem import Problem

WORTH = 1.7
"""How many times faster more threads must be."""


def best_threads(problem: Problem, copies: int = 10) -> int:
    """One thread, unless the number that torch is set to is much faster.

    A forward of the batch, repeated ``copies`` times as in a tiled block, is timed with both. Small
    operations end in a barrier each, and on a busy machine a barrier can wait for a thread that is not
    running (100 times slower was measured), so the gain must be worth that risk.

    Args:
        problem: The problem.
        copies: How often the batch is repeated, if its samples have losses of their own.

    Returns:
        The number of threads; torch's own setting is left as it was.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    repeats = copies if problem.loss_per == "sample" else 1
    try:
        gain = _seconds(problem, 1, repeats) / _seconds(problem, most, repeats)
        return most if gain > WORTH else 1
    finally:
        torch.set_num_threads(most)


def _seconds(problem: Problem, threads: int, repeats: int) -> float:
    torch.set_num_threads(threads)
    taken = []
    with torch.no_grad():
        for _ in range(8):
            start = time.perf_counter()
            problem.evaluate(repeats=repeats)
            taken.append(time.perf_counter() - start)
    return sum(taken[2:])
