"""The verdict: what the numbers mean, in plain words, before any of them."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.elements import sentences, tag
from gradprobe.report.sections import register

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
    first = {
        "copy": "one replicate of the whole batch with noise of its own; an estimate is the mean over copies",
        "cosine": f"how well an estimate's direction agrees with {reference}: 1 the same, 0 unrelated, -1 opposite; "
        "in sentences it is read off the fitted alignment law, so that it may differ a little from the mean over "
        "seeds in tables",
        "ceiling": "the cosine that no number of copies passes; what it lacks of 1 is bias, all else noise",
        "gain": f"length of an estimate along {reference}, relative to that of {reference}",
    }
    rows = first | said.words
    listed = (tag("dt", word) + tag("dd", text) for word, text in rows.items())
    return tag("details", tag("summary", "What these words mean"), tag("dl", *listed, class_="facts"))
