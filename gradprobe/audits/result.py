"""What an audit found, as sentences, numbers, text and a page's block."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradprobe.core import markup

_WIDTH = 112


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        function: Name of the function.
        problem: Name of the problem.
        problems: What is wrong with direction, scale, seeds, names or values: sentences.
        unshown: What so many calls could not show to be right.
        warnings: What is worth knowing and need not be wrong: noise, side effects.
        findings: What was found to be right.
        evidence: The numbers behind the sentences, JSON-able.
    """

    function: str
    problem: str
    problems: tuple[str, ...]
    unshown: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[str, ...]
    evidence: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether direction, scale and seeds were found to be right."""
        return not self.problems and not self.unshown

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        said = {k: list(getattr(self, k)) for k in ("problems", "unshown", "warnings", "findings")}
        return {"function": self.function, "problem": self.problem, "ok": self.ok, **said} | {
            "evidence": dict(self.evidence)
        }

    def __str__(self) -> str:
        text = [self._headline()]
        for title, sentences in self._lists():
            text += ["", f"{title}:"]
            for one in sentences:
                text += textwrap.wrap(one, _WIDTH, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(text)

    def _repr_html_(self) -> str:
        lists = [markup.paragraph(title) + markup.listing(said) for title, said in self._lists()]
        header = ["", "weights", "gain", "cosine at most", "ceiling"]
        rows = [[name, *_cells(part)] for name, part in self.evidence["parts"].items()]
        table = markup.details("numbers", markup.table(header, rows, more="layers"))
        return markup.view(markup.heading(self._headline()), *lists, table)

    def _headline(self) -> str:
        count = len(self.problems)
        found = f"{count} problem{'s' * (count > 1)}" if count else "nothing wrong found"
        found += ", but not all was shown" * (not count and not self.ok)
        calls = self.evidence["calls"]
        return f"{self.function} on {self.problem}: {found} ({calls} call{'s' * (calls != 1)} measured)"

    def _lists(self) -> list[tuple[str, tuple[str, ...]]]:
        lists = (
            ("problems", self.problems),
            ("not shown", self.unshown),
            ("warnings", self.warnings),
            ("found to be right", self.findings),
        )
        return [(title, said) for title, said in lists if said]


def _cells(part: Mapping[str, Any]) -> list[str]:
    gain = part["gain"]
    ceiling = part["ceiling"]
    shown = "" if ceiling[0] is None else f"{ceiling[0]:.3f}"
    return [f"{part['numel']:,}", spread(*gain), "" if part["most"] is None else f"{part['most']:.3f}", shown]


def spread(value: float, low: float, high: float) -> str:
    """A number with its interval: ``0.98 [0.91, 1.05]``."""
    if low == high:
        return f"{value:.4g}"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
