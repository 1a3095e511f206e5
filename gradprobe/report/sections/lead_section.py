"""The verdict: what the numbers mean, in plain words, before any of them."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.markup import sentences, tag
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
    return shown + tag("p", about, class_="quiet")
