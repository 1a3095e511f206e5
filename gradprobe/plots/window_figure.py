"""The window of sigmas between smoothing bias and float noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter

from gradprobe import stats
from gradprobe.core.errors import UsageError, one_of, positive, unknown
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import choose_layers
from gradprobe.plots._panels import Panel
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import MARKERS, TITLE_SIZE, PaperFigure, inches, paper
from gradprobe.stats._names import listed
from gradprobe.stats.sigma_window import TOLERANCE
from gradprobe.store.along import one_sweep

SMOOTHING = (0, (2.6, 1.4))
LANE = 0.055
"""Height of a method's window under the axis, relative to the panel's range."""


@register("sigma_sweep", summary="1 - cosine at n copies against sigma, with each method's window of sigmas")
def sigma_sweep(
    ds: xr.Dataset,
    *,
    copies: float | None = None,
    methods: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    scale: str = "raw",
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw what n copies lack of a cosine of 1 with backprop against the size of the noise.

    One panel per layer in execution order, then the whole model; one colour and marker per method. Line and
    shading: the total 1 - cos(n) with its 95 % interval. Dashes: smoothing bias alone, which is what makes the right
    end rise; between dashes and line lie noise and encoding, and the left end rises by the rounding of the loss,
    divided by sigma. Bars under the axis: the sigmas that lose at most ``tolerance`` against the best (marked). All
    numbers come from ``gradprobe.stats.against_sigma``.

    Args:
        ds: Results of ``sigma_sweep``, or of any run with both references and several sigmas of a method.
        copies: n, inside the run or beyond it; default: the run's last.
        methods: Labels without sigma, in the order of the legend; all by default.
        layers: Names or globs; all by default. The model's panel stays that of everything probed.
        tolerance: Largest loss inside the window, in units of the cosine.
        scale: ``raw``, or ``unit-gain``: in the model's panel every layer is rescaled to unit gain.
        model: Draw the model's panel.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A name or option is unknown, a reference is missing, no method has two sigmas, or there is
            nothing to draw.
    """
    one_of("scale", scale, ("raw", "unit-gain"))
    size, ds = inches(width), one_sweep(ds) if isinstance(ds, xr.Dataset) else ds
    n = float(ds["copies"].values[-1]) if copies is None else positive("copies", copies)
    names = choose_layers(ds, layers)
    whole = stats.against_sigma(ds, n, "model", tolerance, scale)
    chosen = _methods(whole, methods)
    found = _panels(ds, whole if model else None, names, n, tolerance)
    if not found or not chosen:
        raise UsageError("there is nothing to draw; choose at least one method, and a layer or the model.")
    figure = _draw_all(found, chosen, size, n)
    figure.gradprobe_caption = _caption(ds, n, tolerance, scale, model)
    given: dict[str, Any] = {"copies": n, "methods": chosen, "layers": names, "tolerance": tolerance}
    given |= {"scale": scale, "model": model, "width": width}
    record = {"figure": "sigma_sweep", "caption": figure.gradprobe_caption, "arguments": given}
    panels = [{"name": p.name, "numel": p.numel, "methods": _numbers(values, chosen)} for p, values in found]
    return finish(figure, record | {"panels": panels} | made_from(ds), save)


def _methods(found: xr.Dataset, given: str | Sequence[str] | None) -> list[str]:
    known = [str(m) for m in found["estimator"].values]
    chosen = known if given is None else listed("methods", given)
    for name in chosen:
        if name not in known:
            raise unknown("method", name, known)
    return list(dict.fromkeys(chosen))


def _panels(
    ds: xr.Dataset, whole: xr.Dataset | None, names: list[str], n: float, tolerance: float
) -> list[tuple[Panel, xr.Dataset]]:
    """Each panel with the part of ``against_sigma`` that it shows."""
    found = []
    if names:
        by_layer = stats.against_sigma(ds, n, "layer", tolerance)
        for name in names:
            one = by_layer.sel(layer=name)
            found.append((Panel(name, "layer", int(one["numel"]), []), one))
    if whole is not None:
        name = "model, unit gain" if whole.attrs["scale"] == "unit-gain" else "model"
        found.append((Panel(name, "model", int(ds["numel"].sum()), []), whole))
    return found


def _numbers(values: xr.Dataset, methods: list[str]) -> list[dict[str, Any]]:
    out = []
    for name in methods:
        one = values.sel(estimator=name)
        parts = {str(p): one["value"].sel(part=p).values for p in one["part"].values}
        about = {k: one[k].values for k in ("verdict", "excess", "excess_low", "excess_high", "state")}
        about |= {f"total_{k}": one[k].sel(part="total").values for k in ("low", "high")}
        ends = {k: float(one[k]) for k in ("best", "window_low", "window_high")}
        out.append({"method": name, "sigma": values["sigma"].values, "parts": parts} | about | ends)
    return out


def _draw_all(
    found: list[tuple[Panel, xr.Dataset]], methods: list[str], size: float, n: float
) -> PaperFigure:
    room = _layout.room(len(found), size)
    with paper(marks=min(1.0, 0.5 + 0.4 * room)):
        figure, axes = _layout.make_grid(len(found), size)
        titles = _layout.titles([p for p, _ in found], room)
        bottom, top = _range(found, methods)
        looks = {m: _look(found[0][1], m, i) for i, m in enumerate(methods)}
        for axis, (_, values), title in zip(axes, found, titles, strict=True):
            for i, method in enumerate(methods):
                lane = -LANE * top * (i + 1)
                _draw_method(axis, values.sel(estimator=method), looks[method], lane)
            axis.set_title(title)
            axis.axhline(0, color="0.3", linewidth=0.5, zorder=1.5)
            axis.set(xscale="log", ylim=(bottom, top))
            axis.spines["left"].set_bounds(0, top)
            _ticks(axis, values["sigma"].values, room, top)
        legend = _legend(figure, looks)
        heads = [(3 + 1.25 * TITLE_SIZE * (t.count("\n") + 1)) / 72 for t in titles]
        _layout.set_height(figure, heads, legend, size)
        figure.supxlabel("standard deviation $σ$ of the noise")
        label = f"1 − cosine with backprop at n = {n:,g} copies"
        figure.supylabel(_layout.axis_label(label, 0.75 * figure.get_figheight()))
    return figure


def _look(values: xr.Dataset, method: str, rank: int) -> dict[str, Any]:
    one = values.sel(estimator=method)
    color = str(one["color"].values)
    face = "white" if str(one["target"].values) == "surrogate" else color
    shape = {"marker": MARKERS[rank % len(MARKERS)], "markerfacecolor": face, "markeredgecolor": color}
    return {"color": color, "markeredgewidth": 0.8} | shape


def _draw_method(axis: Axes, values: xr.Dataset, look: dict[str, Any], lane: float) -> None:
    total = values.sel(part="total")
    there = np.isfinite(total["value"].values)
    sigma = values["sigma"].values[there]
    low, high = (total[k].values[there] for k in ("low", "high"))
    shade: dict[str, Any] = {"color": look["color"], "alpha": _draw.BAND_ALPHA, "linewidth": 0}
    axis.fill_between(sigma, low, high, zorder=1, gid="band", **shade)
    axis.plot(sigma, total["value"].values[there], zorder=3, gid="total", **look)
    smooth = values["value"].sel(part="smoothing").values
    dashes: dict[str, Any] = {"color": look["color"], "linestyle": SMOOTHING, "linewidth": 0.9}
    axis.plot(values["sigma"], smooth, zorder=2, gid="smoothing", **dashes)
    if np.isfinite(best := float(values["best"])):
        ends = [float(values[k]) for k in ("window_low", "window_high")]
        bar: dict[str, Any] = {"solid_capstyle": "round", "clip_on": False, "gid": "window"}
        axis.plot(ends, [lane, lane], color=look["color"], linewidth=1.6, **bar)
        axis.plot([best], [lane], ls="none", gid="best", **look | {"markersize": 3.0})


def _range(found: list[tuple[Panel, xr.Dataset]], methods: list[str]) -> tuple[float, float]:
    """Room for all totals, dashes up to 1, intervals up to a tenth beyond; below zero, lanes for the windows."""
    values = [v.sel(estimator=methods) for _, v in found]
    shown = np.concatenate([v["value"].sel(part="total").values.ravel() for v in values])
    smooth = np.concatenate([v["value"].sel(part="smoothing").values.ravel() for v in values])
    shown = np.concatenate([shown, smooth[np.abs(smooth) <= 1]])
    edges = np.concatenate([v["high"].sel(part="total").values.ravel() for v in values])
    shown, edges = shown[np.isfinite(shown)], edges[np.isfinite(edges)]
    most = float(max(shown.max(initial=0.0), 0.01))
    top = 1.03 * min(1.1 * most, max(most, edges.max(initial=0.0)))
    low = float(min(shown.min(initial=0.0), 0.0))
    return min(low, -LANE * top * (len(methods) + 0.8)), top


def _ticks(axis: Axes, sigmas: Any, room: float, top: float) -> None:
    margin = (sigmas[-1] / sigmas[0]) ** 0.08
    axis.set_xlim(sigmas[0] / margin, sigmas[-1] * margin)
    axis.xaxis.set_major_locator(LogLocator(numticks=max(3, int(room / 0.3))))
    axis.xaxis.set_minor_locator(FixedLocator(sigmas))
    axis.xaxis.set_minor_formatter(NullFormatter())
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    axis.yaxis.set_major_locator(FixedLocator([t for t in ticks if -1e-9 <= t <= top]))


def _legend(figure: PaperFigure, looks: dict[str, dict[str, Any]]) -> Legend:
    grey = "0.35"
    handles: list[Any] = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    handles.append(Patch(facecolor=grey, alpha=2 * _draw.BAND_ALPHA, linewidth=0, label="95 % interval"))
    handles.append(Line2D([], [], color=grey, linestyle=SMOOTHING, linewidth=0.8, label="smoothing bias"))
    handles.append(Line2D([], [], color=grey, linewidth=1.6, label="window"))
    return _draw.place_legend(figure, handles)


def _caption(ds: xr.Dataset, n: float, tolerance: float, scale: str, model: bool) -> str:
    about, seeds, last = ds.attrs.get("problem", ""), ds.sizes["seed"], int(ds["copies"].values[-1])
    said = [
        f"1 - cosine with backprop at n = {n:,g} copies{f' ({about})' if about else ''} against the standard "
        "deviation of the noise. Dashes: what smoothing the loss costs; above them noise and encoding. Towards small "
        "sigma the rounding of the loss is divided by sigma.",
        f"Shading: 95 % interval over {seeds} seeds, pointwise, for this batch only. Bars: sigmas that lose at most "
        f"{tolerance:g} against the best one (marked), among those probed.",
    ]
    if n > last:
        said.append(f"Predicted by the alignment law: the run ends at {last:,} copies.")
    if model:
        how = "each rescaled to unit gain" if scale == "unit-gain" else "with their own gains"
        said.append(f"Whole model: sum over the probed layers, {how}.")
    return " ".join(said)
