"""All findings of a look at a problem, as a list, a table and text."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradprobe.checkup import CHECKS
from gradprobe.checkup.finding import OK, REFUSED, WARNING, Finding
from gradprobe.core import markup

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found.

    Attributes:
        problem: Name of the problem.
        findings: Those of the whole problem first, then layer by layer in execution order.
    """

    problem: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is neither a warning nor a refusal."""
        return all(f.status == OK for f in self.findings)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings because of which numbers mean less than they seem to."""
        return tuple(f for f in self.findings if f.status == WARNING)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Findings because of which numbers would be wrong."""
        return tuple(f for f in self.findings if f.status == REFUSED)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {"problem": self.problem, "findings": [f.to_dict() for f in self.findings]}

    def table(self) -> pd.DataFrame:
        """One row for each finding: check, layer, status, sentence, value."""
        import pandas as pd

        columns = ["check", "layer", "status", "sentence", "value"]
        return pd.DataFrame([[getattr(f, name) for name in columns] for f in self.findings], columns=columns)

    def __str__(self) -> str:
        width = shutil.get_terminal_size((118, 24)).columns
        rows = [[f.check, f.status, f.sentence] for f in self.findings if f.layer is None]
        text = [self._headline(), "", *_wrapped(rows, width)]
        header, cells = self._layers()
        if cells:
            text += ["", *_columns([header, *cells])]
        said = [f for f in self.findings if f.layer is not None and f.status != OK]
        text += [""] * bool(said) + _wrapped([[f.check, f.status, f.sentence] for f in said], width)
        return "\n".join(text)

    def _repr_html_(self) -> str:
        header, cells = self._layers()
        problem = [[f.check, f.status, f.sentence] for f in self.findings if f.layer is None]
        said = [
            [f.check, f.status, f.sentence] for f in self.findings if f.layer is not None and f.status != OK
        ]
        names = ["check", "status", "finding"]
        words = range(1, max(len(header), len(names)))
        tables = [(names, problem, "findings"), (header, cells, "layers"), (names, said, "findings")]
        shown = [markup.table(head, rows, words=words, more=more) for head, rows, more in tables if rows]
        return markup.view(markup.heading(self._headline()), *shown)

    def _headline(self) -> str:
        counts = f"{len(self.warnings)} warnings, {len(self.refused)} refused"
        return f"{self.problem}: {'all ok' if self.ok else counts}"

    def _layers(self) -> tuple[list[str], list[list[str]]]:
        """Header and one row for each layer."""
        mine = [f for f in self.findings if f.layer is not None]
        checks = [c.name for c in in_order() if any(f.check == c.name for f in mine)]
        at = {(f.layer, f.check): f.cell for f in mine}
        layers = dict.fromkeys(str(f.layer) for f in mine)
        return ["layer", *checks], [[name, *(at.get((name, c), "") for c in checks)] for name in layers]


def in_order() -> list[Any]:
    """Entries of the registry in the order of tables."""
    return sorted(CHECKS, key=lambda entry: entry.meta["order"])


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _wrapped(rows: list[list[str]], width: int) -> list[str]:
    """Rows of two words and a sentence, the sentence wrapped in its own column."""
    lines = []
    for check, status, sentence in rows:
        start = f"{check:<10}  {status:<7}  "
        wrap = textwrap.wrap(sentence, max(width - len(start), 40)) or [""]
        lines += [start + wrap[0], *(" " * len(start) + more for more in wrap[1:])]
    return lines
