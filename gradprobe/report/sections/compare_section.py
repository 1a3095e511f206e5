"""Several runs side by side: quality along checkpoints or sigma, and what each of them says in plain words."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from gradprobe.plots import PLOTS
from gradprobe.report.batches import MODEL
from gradprobe.report.comparison import LAW, Comparison, compare_runs
from gradprobe.report.context import Context, one_line
from gradprobe.report.elements import joined, sentences, tag
from gradprobe.report.elements import name as name_of
from gradprobe.report.plain_words import verdict
from gradprobe.report.sections import register
from gradprobe.report.sheets import Column, Row, sheet
from gradprobe.report.text import cell
from gradprobe.store.along import apart, is_comparison

PANELS = 11
"""Layers up to which each has a panel; of more, the table says what they do."""

SAID = 3
"""Sentences of each run's verdict."""

NUMBERS = ("cosine", *LAW)
WORDS = {"half_copies": "half-power"}


@register("compare", summary="several runs side by side", title="Runs side by side", order=5, runs=True)
def compare(context: Context) -> Markup | None:
    """Figures, table and verdicts of all runs; nothing where there is one."""
    if not is_comparison(context.whole):
        return None
    whole = context.whole.isel(batch=0) if "batch" in context.whole.dims else context.whole
    found = compare_runs(whole, context.copies, context.reference)
    names = ", ".join(one_line(x) for x in whole[found.dim].values)
    about = (
        f"{whole.sizes[found.dim]} runs of one model, by {found.dim}: {names}. Acc. over {found.range[0]:,} to "
        f"{found.range[1]:,} copies, cosine at {found.copies:,}, with 95 % intervals over seeds, for this batch. "
        "Empty: not resolved, its bounds beside it."
    )
    parts = [tag("p", about, class_="note"), sentences(found.notes) if found.notes else None]
    parts += [_figure(context, whole, found, quantity) for quantity in ("cosine", "ceiling")]
    parts += [_sheet(context, found), *_verdicts(context, whole, found.dim)]
    return joined([*parts, tag("p", f"What follows is about {context.which}.", class_="note")])


def _figure(context: Context, whole: Any, found: Comparison, quantity: str) -> Markup | None:
    if quantity != "cosine" and any(run.sizes["copies"] < 2 for _, run in apart(whole)):
        return None
    figure = PLOTS.get("training")(
        whole,
        quantity,
        copies=found.copies,
        reference=context.reference,
        layers=None if len(context.layers) <= PANELS else [],
        width=7.0 if len(context.layers) <= PANELS else 4.4,
    )
    drawn = context.svg(figure, f"compare-{quantity}", f"{quantity} at each {found.dim}")
    return tag("figure", drawn, tag("figcaption", figure.gradprobe_caption), class_="wide")


def _sheet(context: Context, found: Comparison) -> Markup:
    numeric = found.table[found.dim].dtype.kind in "iuf"
    columns = [Column("layer", False), Column("method", False), Column(found.dim, numeric), Column("Acc.")]
    columns += [Column(WORDS.get(n, n) + end) for n in NUMBERS for end in ("", " low", " high")]
    rows = []
    for values in found.table.to_dict("records"):
        layer, method, label = str(values["layer"]), str(values["method"]), values[found.dim]
        about: list[Any] = [(name_of(layer), layer), (context.method(method), method)]
        about.append((f"{label:g}", float(label)) if numeric else (name_of(one_line(label)), str(label)))
        numbers = [(cell("Acc.", values["Acc."]), float(values["Acc."]))]
        for name in NUMBERS:
            numbers += [
                (cell(name, values[name + end]), float(values[name + end])) for end in ("", "_low", "_high")
            ]
        rows.append(Row([*about, *numbers, values["state"]], None if layer == MODEL else layer, method))
    return sheet(context, "comparison", [*columns, Column("state", False)], rows)


def _verdicts(context: Context, whole: Any, dim: str) -> list[Markup]:
    parts = []
    for label, run in apart(whole):
        said = verdict(run, reference=context.reference).sentences
        parts += [tag("h3", one_line(f"{dim} {label}")), sentences(said[:SAID])]
    return parts
