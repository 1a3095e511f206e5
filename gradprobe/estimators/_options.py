"""Options that are given for all methods of a run: each must be one of some method's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradprobe.core.errors import UsageError, unknown
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import Labelled, make


def check_options(made: Sequence[Labelled], options: Iterable[str], known: set[str]) -> None:
    """Refuse options that none of the methods has.

    Args:
        made: The methods.
        options: Names of the options.
        known: Further names that could have been meant.

    Raises:
        UsageError: A name is an option of other methods only, or of none.
    """
    for key in options:
        have = {name for item in made for name in vars(item.estimator)}
        if key not in have and (other := _owner(key)):
            labels = ", ".join(item.label for item in made)
            raise UsageError(
                f"no option {key} for {labels}; leave it out, or add a method that has it, such as {other}."
            )
        if key not in have:
            raise unknown("option", key, sorted(have | known))


def _owner(option: str) -> str | None:
    """A method that has an option, if there is one."""
    for name in ESTIMATORS.names():
        try:
            found = option in vars(make(name).estimator)
        except UsageError:  # of another package, which is not whole
            continue
        if found:
            return name
    return None
