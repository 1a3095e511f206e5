"""How do numbers flow through gradprobe, from the key of a noise stream to a figure?

Draws the steps, what each hands to the next and the folder that does it.

    python analyses/data_flow.py --out figures/data_flow
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from gradprobe.plots._save import save
from gradprobe.plots._style import NOTE_SIZE, WIDTHS, PaperFigure, paper

TORCH, LABELLED, SIDE = "#D6ECF9", "#FBE7C2", "#E8E8E8"
"""Tints of the blue and orange that colour-blind readers tell apart, and grey; the text says the same."""
HEIGHT, STEP, LEFT, WIDTH = 0.68, 1.0, 0.5, 6.6
INK = "#222222"


@dataclass(frozen=True)
class Step:
    """One box: what happens, what is handed on, and the folder that does it."""

    title: str
    hands: str
    folder: str
    torch: bool = True


STEPS = (
    Step("Key", "root seed, family, where, layer, call, seed, block", "core/streams.py"),
    Step("Noise", "one array a copy; the same key gives the same bits", "engine/noise"),
    Step("Draw", "noisy forwards: a loss for each copy and sample", "engine, problems"),
    Step("Read-outs", "loss x score, or its signs: lr and alr share a draw", "estimators"),
    Step("Pull-back", "through the layer alone: a direction for each block", "layers"),
    Step("Moments", "$\\langle g_n, g\\rangle$, $|g_n|^2$, $|B_k|^2$ after each block of copies", "probes"),
    Step("Run", "a Dataset: estimator, parameter, seed, copies", "store", False),
    Step("Statistics", "cosine, ceiling, price, gain, each with interval", "stats", False),
    Step("Words and figures", "verdict, tables, figures, report, plan", "plots, report, cli", False),
)
JOINS = 5
"""The step at which the reference comes in."""


def top(row: int) -> float:
    """Where the box of a step begins; the sides of the house are a gap apart."""
    return -(row * STEP + (0.42 if not STEPS[row].torch else 0))


def box(axes: Axes, left: float, upper: float, width: float, colour: str) -> None:
    """A rounded box."""
    style = "round,pad=0,rounding_size=0.12"
    patch = FancyBboxPatch((left, upper - HEIGHT), width, HEIGHT, boxstyle=style, fc=colour, ec=INK, lw=0.5)
    axes.add_patch(patch)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A thin arrow."""
    look = {"arrowstyle": "-|>", "lw": 0.8, "color": INK, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    axes.annotate("", xy=end, xytext=start, arrowprops=look)


def draw_step(axes: Axes, row: int, step: Step) -> None:
    """A box, its two lines, its folder, and the arrow to the next."""
    upper = top(row)
    box(axes, LEFT, upper, WIDTH, TORCH if step.torch else LABELLED)
    axes.text(LEFT + 0.15, upper - 0.23, step.title, fontweight="bold", va="center")
    folder = {"ha": "right", "va": "center", "fontsize": NOTE_SIZE, "family": "DejaVu Sans Mono"}
    axes.text(LEFT + WIDTH - 0.15, upper - 0.23, step.folder, **folder)
    axes.text(LEFT + 0.15, upper - 0.49, step.hands, va="center", fontsize=6.2)
    if row + 1 < len(STEPS):
        arrow(axes, (LEFT + WIDTH / 2, upper - HEIGHT), (LEFT + WIDTH / 2, top(row + 1)))


def draw_reference(axes: Axes) -> None:
    """Backprop, which the moments are held against."""
    left, width = LEFT + WIDTH + 0.4, 2.0
    upper = top(JOINS)
    box(axes, left, upper, width, SIDE)
    axes.text(left + 0.12, upper - 0.23, "Reference", fontweight="bold", va="center")
    axes.text(left + 0.12, upper - 0.49, "$g$ by backprop", va="center", fontsize=6.2)
    arrow(axes, (left, upper - HEIGHT / 2), (LEFT + WIDTH, upper - HEIGHT / 2))


def draw_sides(axes: Axes) -> None:
    """The two sides of the house, and what divides them."""
    first = next(row for row, step in enumerate(STEPS) if not step.torch)
    border = (top(first - 1) - HEIGHT + top(first)) / 2
    right = LEFT + WIDTH + 2.4
    for ends in ((0.0, LEFT + WIDTH / 2 - 0.2), (LEFT + WIDTH / 2 + 0.2, right)):
        axes.plot(ends, (border, border), ls=(0, (3, 2)), lw=0.7, color=INK)
    axes.text(
        right, border - 0.24, "store/schema.py", ha="right", fontsize=NOTE_SIZE, family="DejaVu Sans Mono"
    )
    for word, ends in (("torch", (0, first - 1)), ("no torch", (first, len(STEPS) - 1))):
        middle = (top(ends[0]) + top(ends[1]) - HEIGHT) / 2
        axes.text(0.2, middle, word, rotation=90, ha="center", va="center")


def figure() -> PaperFigure:
    """The whole of it, one column wide."""
    width = WIDTHS["single"]
    wide, low = LEFT + WIDTH + 2.45, top(len(STEPS) - 1) - HEIGHT - 0.05
    with paper():
        made = PaperFigure(figsize=(width, width * (0.05 - low) / wide))
        axes = made.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, wide), ylim=(low, 0.05))
        axes.axis("off")
        for row, step in enumerate(STEPS):
            draw_step(axes, row, step)
        draw_reference(axes)
        draw_sides(axes)
    return made


def main(
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/data_flow"),
    smoke: Annotated[bool, typer.Option("--smoke", help="The same: it takes a second.")] = False,
) -> None:
    """Draw it."""
    steps = [{"step": step.title, "hands on": step.hands, "folder": step.folder} for step in STEPS]
    for file in save(figure(), out, {"figure": "data flow", "steps": steps}):
        print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
