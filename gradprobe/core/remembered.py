"""Values that are computed once, of which the large ones give way to later ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class Remembered:
    """What was computed, by key.

    Attributes:
        limit: Bytes that large values may take together; the one that was not asked for the longest goes first. The
            latest is kept whatever its size.
    """

    def __init__(self) -> None:
        self.limit: float = math.inf
        self._values: dict[Any, Any] = {}
        self._sizes: dict[Any, int] = {}

    def get(self, key: Any, compute: Callable[[], Any], size: Callable[[Any], int] | None = None) -> Any:
        """The value of a key.

        Args:
            key: The key.
            compute: Makes the value, where there is none.
            size: Bytes of a large value; values without it are kept for good.
        """
        if key not in self._values:
            value = compute()
            self._values[key] = value
            if size is not None:
                self._sizes[key] = size(value)
                self.tidy()
            return value
        if key in self._sizes:
            self._sizes[key] = self._sizes.pop(key)
        return self._values[key]

    def tidy(self) -> None:
        """Forget large values, oldest first, until the others fit."""
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self.limit:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest], self._values[oldest]
