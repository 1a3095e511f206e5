"""A problem in a few lines: what is run on what, and what it is made of."""

from __future__ import annotations

from typing import Any

from gradprobe.core.markup import heading, paragraph, table, view


def problem_view(problem: Any) -> str:
    """HTML of a ``gp.Problem``; nothing is run for it."""
    parameters = problem.parameters
    weights = sum(p.numel() for p in parameters.values())
    per = "one loss for each sample" if problem.loss_per == "sample" else "one loss for the whole batch"
    loss = (
        problem.loss
        if isinstance(problem.loss, str)
        else getattr(problem.loss, "__name__", "loss of your own")
    )
    said = [f"{type(problem.module).__name__}, {problem.mode} mode, on {problem.device}"]
    known = [
        f"{k.replace('_', ' ')}: {v}" for k, v in problem.facts.items() if isinstance(v, str | int | float)
    ]
    return view(
        heading(problem.name, f"batch of {problem.samples}", f"{loss}, {per}", f"{weights:,} weights"),
        paragraph("; ".join(said + known), small=True),
        table(
            ["parameter", "shape", "weights"],
            [
                [name, " × ".join(map(str, p.shape)) or "one number", f"{p.numel():,}"]
                for name, p in parameters.items()
            ],
            more="parameters",
        ),
    )
