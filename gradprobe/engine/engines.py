"""What an engine is, and how it is written down with a run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gradprobe.core.errors import UsageError, one_of, unknown

NAMES = ("loop", "tile", "vmap")


@dataclass(frozen=True)
class Engine:
    """A way to run copies.

    Attributes:
        name: ``"loop"`` (one forward for each copy; right for any model), ``"tile"`` (copies folded into the
            batch; per-sample losses and activation noise only) or ``"vmap"`` (the noise alone is batched).
        graph: Whether the forward is traced, and only what depends on the noise runs; see :mod:`.graph`.
        layout: ``"channels_last"``: how images lie in memory; empty for the model's own.
        copies: Copies in one call; 0 for a block.
    """

    name: str = "loop"
    graph: bool = False
    layout: str = ""
    copies: int = 0

    def __str__(self) -> str:
        words = [self.name, "graph" * self.graph, self.layout, f"x{self.copies}" * bool(self.copies)]
        return " ".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> Engine:
        """Inverse of ``str``: a name, then any of "graph", "channels_last" and "x10" (copies in one call).

        Raises:
            UsageError: A word is none of these, or does not go with the name.
        """
        name, *words = text.split()
        if name == "auto":
            raise UsageError(
                f"engine 'auto' takes no further words ({' '.join(words)}): it finds them itself."
            )
        one_of("engine", name, NAMES)
        if name == "tile" and "graph" in words:
            raise UsageError("engine 'tile' runs the model itself; leave out 'graph', or use 'loop graph'.")
        for word in words:
            if word not in ("graph", "channels_last") and not re.fullmatch(r"x[1-9]\d*", word):
                raise unknown("word in engine", word, ["graph", "channels_last", "x10"])
        copies = next((int(w[1:]) for w in words if w[0] == "x"), 0)
        layout = next((w for w in words if w == "channels_last"), "")
        return cls(name, "graph" in words, layout, copies)
