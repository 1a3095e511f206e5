"""The verdict: what the numbers mean, in plain words, before any of them."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.report import kinds as c
from gradprobe.report.context import Context
from gradprobe.report.markup import sentences, tag
from gradprobe.report.sections import register
from gradprobe.report.wording import WORDS

MOST = 6
"""Sentences that are not folded away."""


@register("verdict", summary="what the numbers mean, in plain words", title="In plain words", order=10)
def verdict(context: Context) -> Markup | None:
    """Sentences of the verdict, most important first."""
    said = context.verdict.sentences
    shown = sentences(said[:MOST])
    if len(said) > MOST:
        more = tag("summary", f"{len(said) - MOST} more sentence{'s' * (len(said) > MOST + 1)}")
        shown += tag("details", more, sentences(said[MOST:]))
    seeds = context.ds.sizes["seed"]
    about = f"All intervals and verdicts are over {seeds} seed{'s' * (seeds > 1)}, for this batch."
    return shown + _words(context) + tag("p", about, class_="quiet")


def _words(context: Context) -> Markup:
    """What the words mean of which the verdict makes use, folded away."""
    said = context.verdict
    reference = {"bp": "backprop"}.get(context.reference, f"the {context.reference} gradient")
    good, exact = said.facts["cosine"], said.facts["exact"]
    first = {
        "copy": "one replicate of the whole batch with noise of its own; an estimate is the mean over copies",
        "cosine": f"how well an estimate's direction agrees with {reference}: 1 the same, 0 unrelated, -1 opposite; "
        "in sentences it is read off the fitted alignment law, so that it may differ a little from the mean over "
        "seeds in tables",
        "ceiling": "the cosine that no number of copies passes; what it lacks of 1 is bias, all else noise",
        "gain": f"length of an estimate along {reference}, relative to that of {reference}",
    }
    kinds = {
        c.NEARLY: f"the cosine is above {exact:g} after the copies of this run",
        c.GOOD: f"it is above {good:g}",
        c.NOISE: f"it is below {good:g} and its ceiling above: more copies get there",
        c.BIAS: f"the ceiling is below {good:g}: more copies do not get there, another method may",
        c.AGAINST: "the cosine is negative",
        c.OPEN: "none of these is beyond doubt over all layers and methods at once, though numbers may look so",
        c.NOTHING: "the cosine is not told from 0",
    }
    found = set(said.table["kind"])
    rows = first | {WORDS[kind]: text for kind, text in kinds.items() if kind in found}
    listed = (tag("dt", word) + tag("dd", text) for word, text in rows.items())
    return tag("details", tag("summary", "What these words mean"), tag("dl", *listed, class_="facts"))
