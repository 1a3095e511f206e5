"""The error for weights that do not fit: one sentence, and behind it the table of all names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradprobe.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

KINDS = ("shape", "type", "missing", "unexpected", "matched")
SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One name of the table.

    Attributes:
        kind: ``"shape"`` or ``"type"`` (in both, but different), ``"missing"`` (in the model alone),
            ``"unexpected"`` (in the file alone) or ``"matched"``.
        name: Name in the model; in the file if it is unexpected.
        model: What it is in the model: shape or type.
        file: What it is in the file.
        near: The most similar name of the other side, looked for in the first rows of each kind only, because
            comparing all names of a large model takes minutes.
    """

    kind: str
    name: str
    model: str = ""
    file: str = ""
    near: str = ""


class CheckpointError(UsageError):
    """Weights that do not fit the model.

    Attributes:
        table: One row for each name of model and file.
    """

    def __init__(self, message: str, table: Sequence[Row] = ()) -> None:
        super().__init__(message)
        self.table = list(table)


def show(table: Sequence[Row], console: Console) -> None:
    """Print the first rows of each kind."""
    from rich.table import Table

    shown = Table("", "name", "in the model", "in the file", "nearest name", box=None)
    counts = Counter(row.kind for row in table)
    for kind in (k for k in KINDS if counts[k]):
        for row in [row for row in table if row.kind == kind][:SHOWN]:
            shown.add_row(*(_plain(x) for x in (row.kind, row.name, row.model, row.file, row.near)))
        if counts[kind] > SHOWN:
            shown.add_row(kind, f"... and {counts[kind] - SHOWN} more")
        shown.add_section()
    console.print(shown, highlight=False)


def _plain(text: str) -> str:
    """Text with its brackets as they are: rich takes ``[...]`` for markup."""
    from rich.markup import escape

    return escape(text)
