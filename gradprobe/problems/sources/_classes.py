"""What classes a column of a table has, and the number of each: the same in every split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradprobe.core.errors import UsageError, unknown, whole

Number = Callable[[Any], Any]
"""What turns a cell into a target."""

STRINGS = ("string", "large_string")


def classes_of(
    table: Any,
    target: str | None,
    kind: str,
    label: str,
    wish: Any,
    splits: Callable[[], Sequence[Any]],
) -> tuple[int | None, Number]:
    """Number of classes, and what turns a cell into a target.

    Args:
        table: The split that is read.
        target: Column of the targets, or None.
        kind: What the inputs are; words have a label each.
        label: What to call the data.
        wish: The user's classes: labels in order, or how many; None: they are found.
        splits: Gives all splits that are at hand. Classes without names are counted in all of them, because a
            split may lack some.

    Returns:
        The number of classes (None where targets are no classes) and the function. For whole numbers that have no
        names, the number is one more than the largest seen, so where a split is missing it is a lower bound.

    Raises:
        UsageError: A class is negative, or the user's classes are none.
    """
    if target is None:
        return None, _same
    feature = table.features[target]
    feature = getattr(feature, "feature", feature) if kind == "words" else feature
    dtype = str(getattr(feature, "dtype", ""))
    if wish is not None and (kind == "words" or isinstance(wish, int)):
        return whole("classes", wish), _same if dtype not in STRINGS else _numbers(_seen(splits, target))
    if wish is not None:
        names = wish.split(",") if isinstance(wish, str) else list(wish)
        names = [str(n).strip() for n in names]
        return len(names), _checked(_numbers(names), names, f"class of column {target!r} of {label}")
    if type(feature).__name__ == "ClassLabel":
        return feature.num_classes, _same
    if kind == "words":
        return None, _same
    if dtype == "bool":
        return 2, lambda v: None if v is None else int(v)
    if dtype in STRINGS:
        found = _seen(splits, target)
        return len(found), _numbers(found)
    if dtype.startswith(("int", "uint")):
        values = _seen(splits, target)
        if values and values[0] < 0:
            raise UsageError(f"column {target!r} of {label} has the class {values[0]}; classes count from 0.")
        return max(values, default=0) + 1, _same
    return None, _same


def _same(value: Any) -> Any:
    return value


def _seen(splits: Callable[[], Sequence[Any]], target: str) -> list[Any]:
    """All values of a column, sorted; splits without the column (a test without labels) have none."""
    tables = [t for t in splits() if target in t.features]
    return sorted({v for t in tables for v in t.unique(target) if v is not None})


def _numbers(names: Sequence[Any]) -> Number:
    place = {name: i for i, name in enumerate(names)}
    return place.get


def _checked(number: Number, names: Sequence[str], what: str) -> Number:
    """As ``number``, of text; a label that is not among the names is refused."""

    def checked(value: Any) -> Any:
        if value is None:
            return None
        if (found := number(str(value))) is None:
            raise unknown(what, str(value), names)
        return found

    return checked
