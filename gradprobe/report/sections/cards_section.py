"""One card for each layer: what is said of it, its similarity curves, and noise or bias."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gradprobe.plots._cards import bar_cards, curve_cards
from gradprobe.plots._choice import Choice
from gradprobe.plots._panels import Panel, layer_panels
from gradprobe.plots._parts import LOOKS, WORDS, Group, groups, noise_and_bias
from gradprobe.report.context import Context
from gradprobe.report.elements import joined, tag
from gradprobe.report.sections import register

BIAS = "bias of the encoding or of smoothing"


@register(
    "layers", summary="each layer: sentences, similarity, noise or bias", title="Layer by layer", order=90
)
def layers(context: Context) -> Markup | None:
    """Cards in execution order, with what all of them mean above."""
    choice = Choice(context.reference, "raw", 0.95, "interval", context.has_law)
    panels = layer_panels(context.thin, context.methods, context.layers, choice)
    bars = _bars(context)
    curves = context.svgs(
        curve_cards(panels),
        [f"s{i}" for i in range(len(panels))],
        [f"Cosine similarity against copies, layer {p.name}" for p in panels],
    )
    parts = context.svgs(
        bar_cards(bars),
        [f"b{i}" for i in range(len(bars))],
        [f"Noise and bias, layer {b.name}" for b in bars],
    )
    cards = (_card(context, panel, next(curves), next(parts, None)) for panel in panels)
    return joined([_about(context, bars), tag("div", *cards, class_="cards")])


def _bars(context: Context) -> list[Group]:
    """Noise and bias at the last copies; none where there is no law."""
    if not context.has_law:
        return []
    last = float(context.ds["copies"].values[-1])
    if {"bp", "smoothed"} <= set(context.ds["reference"].values):
        return groups(context.ds, context.methods, context.layers, last, "raw", model=False)
    return noise_and_bias(context.ds, context.methods, context.layers, last)


def _card(context: Context, panel: Panel, curves: Markup, bars: Markup | None) -> Markup:
    at = context.layer_at(panel.name)
    kind = " · ".join(filter(None, [context.kinds[at], f"{panel.numel:,} weights"]))
    parts = [tag("h3", panel.name), tag("div", kind, class_="quiet")]
    parts += [curves, bars] if bars is not None else [curves]
    if said := context.sentences_of(panel.name):
        items = (tag("li", sentence, class_=context.place(method)) for method, sentence in said)
        parts.append(tag("ul", *items, class_="said"))
    if missing := [f"{c.estimator}: {c.note}" for c in panel.curves if c.note]:
        parts.append(tag("p", "; ".join(missing), class_="note"))
    return tag("article", *parts, class_="card", data_l=at)


def _about(context: Context, bars: Sequence[Group]) -> Markup:
    said = [
        "Above: cosine with the reference against copies, mean over seeds with its pointwise 95 % interval; thin "
        "dashes: the fitted alignment law; marks at infinity: the ceiling with its interval, where resolved. All "
        "layers have the same scale."
    ]
    if not bars:
        return tag(
            "p", *said, " A split into noise and bias needs two blocks; this run has one.", class_="note"
        )
    shown = {part for group in bars for bar in group.bars for part in bar.segments}
    smoothed = any(part in shown for part in ("smoothing", "encoding"))
    words = WORDS if smoothed else WORDS | {"encoding + smoothing": BIAS}
    last = int(context.ds["copies"].values[-1])
    said.append(f"Below: what {last:,} copies lack of a cosine of 1 with backprop; line: its 95 % interval.")
    if "smoothed" not in context.ds["reference"].values:
        said.append("This run holds no smoothed reference, so bias is not split into encoding and smoothing.")
    key = (
        tag(
            "span",
            tag("i", class_=f"part {'hatched' if 'hatch' in LOOKS[part] else ''}", data_part=part),
            words[part],
        )
        for part in LOOKS
        if part in shown
    )
    return tag("p", " ".join(said), class_="note") + tag("p", *key, class_="key")
