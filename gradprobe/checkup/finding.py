"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, REFUSED = "ok", "warning", "refused"
STATUSES = (OK, WARNING, REFUSED)


@dataclass(frozen=True)
class Verdict:
    """What one check says of a problem or of a layer.

    Attributes:
        status: ``"ok"``, ``"warning"`` (numbers mean less than they seem to) or ``"refused"`` (they would be wrong).
        sentence: What was found; if it is not ok, also what it means for the numbers, and the way out.
        value: What was measured, JSON-able; ``value["cell"]`` is what tables of layers show.
    """

    status: str
    sentence: str
    value: Any = None


@dataclass(frozen=True)
class Finding:
    """A verdict, and whose it is.

    Attributes:
        check: Name of the check.
        layer: Name of the layer; None for the whole problem.
        status: ``"ok"``, ``"warning"`` or ``"refused"``.
        sentence: One sentence.
        value: What was measured, JSON-able.
    """

    check: str
    layer: str | None
    status: str
    sentence: str
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)

    @property
    def cell(self) -> str:
        """What a table of layers shows of it: what was measured if it is ok, else the status."""
        if self.status != OK:
            return self.status
        return str(self.value.get("cell", OK)) if isinstance(self.value, dict) else OK


def ok(sentence: str, value: Any = None) -> Verdict:
    """Nothing is wrong."""
    return Verdict(OK, sentence, value)


def warning(sentence: str, value: Any = None) -> Verdict:
    """Numbers mean less than they seem to."""
    return Verdict(WARNING, sentence, value)


def refused(sentence: str, value: Any = None) -> Verdict:
    """Numbers would be wrong."""
    return Verdict(REFUSED, sentence, value)


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first of those with the worst status; None if there is none."""
    return max(verdicts, key=lambda v: STATUSES.index(v.status), default=None)


def named(names: Sequence[str], most: int = 4) -> str:
    """Names as text: ``'a', 'b' and 3 more``."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
