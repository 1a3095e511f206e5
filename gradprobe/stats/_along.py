"""Statistics of several runs side by side: each run alone, then put together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.store.along import apart, further, is_comparison, shared, stacked

P = ParamSpec("P")
R = TypeVar("R")

_VALUES = "values of one array"


def along_runs(function: Callable[P, R], itself: Sequence[str] = ()) -> Callable[P, R]:
    """A statistic that also takes a comparison (``gp.concat``) as its first argument.

    It is computed of each run alone, exactly as if the others were not there, and the results are put together along
    the further dimension; attributes are those in which all results agree. A statistic whose result is no array
    refuses a comparison in a sentence that says how to choose one run.

    Args:
        function: The statistic.
        itself: Further dimensions that it knows.
    """
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def mapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = args[0] if args else kwargs.get(first)
        if not is_comparison(given) or further(given) in itself:
            return function(*args, **kwargs)
        rest = {k: v for k, v in kwargs.items() if args or k != first}
        return cast(R, _each(function, given, args[1:], rest))

    return mapped


def _each(function: Callable[..., Any], ds: xr.Dataset, args: Any, kwargs: dict[str, Any]) -> Any:
    dim = further(ds)
    labels: list[Any] = []
    found: list[Any] = []
    for label, run in apart(ds):
        try:
            result = function(run, *args, **kwargs)
        except UsageError as error:
            raise UsageError(f"{dim} {label!r}: {error}") from error
        if not isinstance(result, (xr.Dataset, xr.DataArray)):
            raise UsageError(
                f"{function.__name__} is about one run; choose one, ds.sel({dim}={label!r}), and ask again."
            )
        labels.append(label)
        found.append(result.drop_vars(dim, errors="ignore"))
    if isinstance(found[0], xr.Dataset):
        return stacked(found, dim, labels)
    alike = stacked([da.to_dataset(name=_VALUES) for da in found], dim, labels)
    out = alike[_VALUES].rename(found[0].name)
    out.attrs = shared([da.attrs for da in found])
    return out
