"""``package.module:function`` and ``path/file.py:function``: data that the user's own Python makes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import map_tensors, tensors
from gradprobe.problems.build import arguments, parameters_of
from gradprobe.problems.data import Data, check_room, check_rows
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.objects import find_object, one_line
from gradprobe.problems.seeded import seeded
from gradprobe.problems.sources import register

GIVES = "return a Data, a pair (inputs, targets), a torch Dataset, a list of pairs or a DataLoader"


@register(
    "python",
    summary="package.module:function or path/file.py:function: Data, (inputs, targets), Dataset, ...",
    written="package.module:function, FILE.py:function",
)
def python(name: str, split: str, options: Mapping[str, Any]) -> Data:
    """Data from a function, or from a data set that exists.

    The function is called with ``split`` and those options that it names. It may return a ``Data``, a pair
    (inputs, targets) of tensors or arrays, a torch ``Dataset`` or a list of pairs (only the rows of a batch are
    read, and put together by torch's ``default_collate``), or a ``DataLoader``, whose first batches are read (if
    it shuffles, with seed 0; generators of its own are given back as they were). The number of classes is known
    where a data set has a list ``classes``.

    Args:
        name: ``package.module:name`` or ``path/file.py:name``.
        split: Name of the split; used if the function names it.
        options: Further arguments of the function.

    Raises:
        UsageError: There is nothing of that name, it cannot be called so, or it gives no data.
    """
    found = find_object(name, "data")
    usable = isinstance(found, (Data, IterableDataset, DataLoader, list, tuple)) or hasattr(
        found, "__getitem__"
    )
    if not usable or isinstance(found, type):
        if not callable(found):
            raise UsageError(
                f"data {name!r} is of type {type(found).__name__}; name a function that may {GIVES}."
            )
        found = _called(name, found, split, options)
    elif options:
        raise UsageError(
            f"data {name!r} exist already, so they take no options ({', '.join(options)}); name a function instead."
        )
    return as_data(name, found)


def as_data(name: str, found: Any) -> Data:
    """What a function gave, as data.

    Raises:
        UsageError: It is nothing that data can be made of.
    """
    if isinstance(found, Data):
        return found
    classes = getattr(getattr(found, "dataset", found), "classes", None)
    count = len(classes) if isinstance(classes, (list, tuple)) and classes else None
    if isinstance(found, DataLoader):
        return _stream(name, found, count)
    if isinstance(found, (tuple, list)) and len(found) == 2 and _is_array(found[1]):
        inputs, targets = (_tensors(part) for part in found)
        return Data(inputs, targets)
    if isinstance(found, IterableDataset):
        return _stream(name, DataLoader(found, batch_size=None), count, single=True)
    if hasattr(found, "__getitem__") and hasattr(found, "__len__") and not isinstance(found, (str, Mapping)):
        return _rows(name, found, count)
    raise UsageError(f"data {name!r} returned a {type(found).__name__}; a function must {GIVES}.")


def _called(name: str, function: Any, split: str, options: Mapping[str, Any]) -> Any:
    given = arguments(f"data {name!r}", function, {"split": split}, options)
    needed = [
        n
        for n, p in parameters_of(function).items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and n not in given
    ]
    if needed:
        raise UsageError(f"data {name!r} need {needed[0]}; give it as an option ({needed[0]}=...).")
    try:
        return function(**given)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"data {name!r} cannot be made: {one_line(error)}.") from error


def _rows(name: str, rows: Sequence[Any], classes: int | None) -> Data:
    """A data set by position: only the rows of a batch are read."""

    def read(first: int, size: int) -> tuple[Any, torch.Tensor]:
        try:
            samples = [rows[i] for i in range(first, first + size)]
        except Exception as error:
            raise UsageError(f"data {name!r} fail at a sample: {one_line(error)}.") from error
        return _pair(name, samples)

    return LazyData(read, len(rows), classes=classes, name=name)


def _stream(name: str, loader: DataLoader[Any], classes: int | None, single: bool = False) -> Data:
    """What can only be read from its start: batches (or single samples) up to the one that is asked for."""

    def read(first: int, size: int) -> tuple[Any, torch.Tensor]:
        with seeded(), _own_generators(loader):
            parts = list(_first_rows(name, loader, first + size, single))
        if not parts:
            raise UsageError(f"data {name!r} give no batch; {_PAIRS}")
        whole = _joined(name, parts)
        check_room(size, first, len(whole[-1]), f"data {name!r}")
        ready = iter(t[first : first + size] for t in whole)
        inputs, targets = map_tensors(lambda t: next(ready), parts[0])
        return inputs, targets

    def once(size: int) -> Iterator[tuple[Any, torch.Tensor]]:
        with _own_generators(loader):
            rows = iter(loader)
            while single and (some := list(islice(rows, size))):
                yield _pair(name, some)
            yield from () if single else _first_rows(name, rows, sys.maxsize, single)

    try:
        size = len(loader.dataset)  # type: ignore[arg-type]  # where it has none, the answer is below
    except TypeError:
        size = 2**62
    return LazyData(read, size, classes=classes, name=name, once=once)


@contextmanager
def _own_generators(loader: DataLoader[Any]) -> Iterator[None]:
    """Seed 0 inside for generators that belong to a loader or its samplers; as before afterwards."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = {id(g): g for o in owners if isinstance(g := getattr(o, "generator", None), torch.Generator)}
    states = {key: g.get_state() for key, g in found.items()}
    try:
        for generator in found.values():
            generator.manual_seed(0)
        yield
    finally:
        for key, generator in found.items():
            generator.set_state(states[key])


def _joined(name: str, parts: Sequence[Any]) -> list[torch.Tensor]:
    """Batches one behind the other, tensor by tensor.

    Raises:
        UsageError: Their tensors are not alike, such as texts padded to the longest of each batch.
    """
    shapes = [[list(t.shape[1:]) for t in tensors(p)] for p in parts]
    odd = next((s for s in shapes if s != shapes[0]), None)
    if odd is not None:
        raise UsageError(
            f"data {name!r} give batches whose samples have shapes {shapes[0]} and {odd}; pad all to the same, or "
            "use a batch_size that the first batch alone can fill."
        )
    return [torch.cat(columns) for columns in zip(*(tensors(p) for p in parts), strict=True)]


def _first_rows(name: str, loader: Iterable[Any], count: int, single: bool) -> Iterable[Any]:
    """Pairs of batches until there are ``count`` rows."""
    if single:
        yield _pair(name, list(islice(loader, count)))
        return
    rows = 0
    for part in loader:
        if not isinstance(part, (tuple, list)) or len(part) != 2 or not isinstance(part[1], torch.Tensor):
            raise UsageError(f"data {name!r} give batches of type {type(part).__name__}; {_PAIRS}")
        check_rows(f"data {name!r}", *part)
        yield tuple(part)
        rows += len(part[1])
        if rows >= count:
            return


_PAIRS = "each must be a pair (inputs, targets)."


def _pair(name: str, samples: list[Any]) -> tuple[Any, torch.Tensor]:
    """Samples put together by torch's ``default_collate``."""
    odd = next((s for s in samples if not isinstance(s, (tuple, list)) or len(s) != 2), None)
    if odd is not None or not samples:
        what = f"a {type(odd).__name__}" if samples else "none"
        raise UsageError(f"data {name!r} give {what} as a sample; {_PAIRS}")
    try:
        inputs, targets = default_collate([tuple(s) for s in samples])
    except Exception as error:
        raise UsageError(
            f"data {name!r} cannot be put together to a batch ({one_line(error)}); give all samples the same shape, "
            "and tensors or arrays instead of pictures."
        ) from error
    return inputs, targets


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (hasattr(value, "__array__") and getattr(value, "ndim", 0) > 0)


def _tensors(value: Any) -> Any:
    """Arrays as tensors, in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor) or not isinstance(value, (Mapping, tuple, list)):
        return torch.as_tensor(value)
    if isinstance(value, Mapping):
        return {k: _tensors(v) for k, v in value.items()}
    return tuple(_tensors(v) for v in value)
