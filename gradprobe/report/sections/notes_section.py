"""What a reader must know besides the numbers."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.elements import sentences
from gradprobe.report.sections import register
from gradprobe.report.tables import notes as notes_of


@register("notes", summary="what a reader must know besides the numbers", title="Notes", order=100)
def notes(context: Context) -> Markup | None:
    """The notes that the terminal prints too."""
    return sentences(notes_of(context.ds))
