"""Descents on a function, moving."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from gradprobe.core.errors import UsageError, whole
from gradprobe.plots import register
from gradprobe.plots._draw import place_legend
from gradprobe.plots._path_panels import START, handles
from gradprobe.plots._style import PaperFigure, inches, paper
from gradprobe.plots._surface import draw_minima, draw_surface, frame, minima_handles, ratio, two_variables
from gradprobe.plots._walkers import methods, one_start, seed_index, within_reach
from gradprobe.store.files import write_atomically

ENDINGS = (".gif", ".mp4")
DPI = 150


@register("animate", summary="all walkers of a path moving over the function's contours, as GIF or MP4")
def animate(
    path: xr.Dataset,
    *,
    save: str | Path,
    seed: int | None = None,
    start: int = 0,
    seconds: float = 8,
    frames: int = 120,
    width: str | float = "single",
) -> Path:
    """Write a film of descents: one seed of each method with its trail, all others as dots.

    Frames are evenly spaced over the recorded steps, so methods are compared step by step, not by evaluations.

    Args:
        path: Result of ``gp.descend`` on a function of two variables.
        save: File to write, ending in .gif, or in .mp4 where ffmpeg is installed.
        seed: The seed with a trail; the first by default.
        start: Which of several starts.
        seconds: How long it lasts.
        frames: Number of pictures, at most.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches, at 150 pixels an inch.

    Returns:
        The file.

    Raises:
        UsageError: It is no path of two variables, a seed or start is unknown, or the file cannot be made.
    """
    file = Path(save)
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"an animation is written as .gif or .mp4, so save={str(save)!r} needs one of these endings."
        )
    film = file.suffix.lower() == ".mp4"
    if film and shutil.which("ffmpeg") is None:
        raise UsageError(
            "an .mp4 needs the program ffmpeg, which is not installed here; give save= the ending .gif."
        )
    whole("frames", frames, least=2)
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be a positive number, not {seconds!r}.")
    chosen = one_start(path, start)
    two_variables(chosen, "an animation")
    pictures = _pictures(chosen, seed_index(chosen, seed), frames, inches(width))
    content = _mp4(pictures, seconds) if film else _gif(pictures, seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)
    return file


def _pictures(path: xr.Dataset, row: int, frames: int, size: float) -> list[np.ndarray]:
    """RGB pictures; the map is drawn once, and only what moves is drawn again."""
    positions = within_reach(path["position"].values, frame(path))
    steps = np.unique(np.linspace(0, path.sizes["step"] - 1, frames).round().astype(int))
    with paper():
        figure = PaperFigure(figsize=(size, 0.86 * size * ratio(path) + 0.3), layout="constrained", dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots()
        draw_surface(axes, path)
        draw_minima(axes, path)
        entries = [h for h in handles(path, True, True) if h.get_label() != "start"] + minima_handles(path)
        legend = place_legend(figure, entries)
        key = legend.get_window_extent(canvas.get_renderer()).height / figure.dpi
        height = (
            round((figure.get_figheight() + key) * DPI / 2) * 2 / DPI
        )  # films need even numbers of pixels
        figure.set_size_inches(round(size * DPI / 2) * 2 / DPI, height)
        axes.plot(*path["start_position"].values[:, None], **START)
        moving = _Moving(axes, path, row)
        canvas.draw()
        background = canvas.copy_from_bbox(figure.bbox)
        found, name = [], path.attrs.get("function", "")
        for step in steps:
            canvas.restore_region(background)
            moving.draw(positions, int(step), f"{name}, step {path['step'].values[step]}")
            found.append(np.array(canvas.buffer_rgba())[..., :3])
    return found


class _Moving:
    """What moves: dots, trails and heads of each method, and the number of the step."""

    def __init__(self, axes: Axes, path: xr.Dataset, row: int) -> None:
        self.axes, self.row = axes, row
        self.others = [i for i in range(path.sizes["seed"]) if i != row]
        dots: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 1.9, "markeredgewidth": 0, "alpha": 0.55}
        self.parts: list[Any] = []
        for m in methods(path):
            (cloud,) = axes.plot([], [], color=m.color, animated=True, zorder=3, **dots)
            (trail,) = axes.plot([], [], color=m.color, animated=True, linestyle=m.dashes, linewidth=1.2)
            (head,) = axes.plot([], [], ls="none", ms=5, animated=True, **m.marker)
            self.parts.append((m.stochastic, cloud, trail, head))
        self.label = axes.set_title("", animated=True)
        # room for the text: the layout is made before there is any
        self.label.set_text(f"{path.attrs.get('function', '')}, step {path['step'].values[-1]}")

    def draw(self, positions: np.ndarray, step: int, text: str) -> None:
        """Draw one moment; walkers that diverged are gone."""
        for rank, (noisy, cloud, trail, head) in enumerate(self.parts):
            if noisy:
                cloud.set_data(*positions[rank, self.others, step].T)
            trail.set_data(*positions[rank, self.row, : step + 1].T)
            head.set_data(*positions[rank, self.row, step][:, None])
        self.label.set_text(text)
        for kind in (1, 2, 3):
            for part in self.parts:
                self.axes.draw_artist(part[kind])
        self.axes.draw_artist(self.label)


def _gif(pictures: list[np.ndarray], seconds: float) -> bytes:
    """One palette for all frames, taken from the first, middle and last, so that colours do not flicker."""
    some = np.concatenate([pictures[i] for i in (0, len(pictures) // 2, -1)])
    palette = Image.fromarray(some).quantize(colors=255)
    images = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    stream = io.BytesIO()
    each = max(20, round(100 * seconds / len(images)) * 10)  # GIF counts hundredths of a second
    images[0].save(stream, "GIF", save_all=True, append_images=images[1:], duration=each, loop=0)
    return stream.getvalue()


def _mp4(pictures: list[np.ndarray], seconds: float) -> bytes:
    """Through ffmpeg, H.264 as most programs play it.

    Raises:
        UsageError: ffmpeg fails.
    """
    height, width = pictures[0].shape[:2]
    rate = f"{len(pictures) / seconds:.6f}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"
        shape = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
        coded = ["-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(file)]
        command = ["ffmpeg", "-loglevel", "error", "-y", *shape, *coded]
        data = b"".join(p.tobytes() for p in pictures)
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode or not file.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise UsageError(
                f"ffmpeg could not write the film: {' '.join(said)}; give save= the ending .gif."
            )
        return file.read_bytes()
