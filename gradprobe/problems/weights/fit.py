"""Whether every tensor of a file fits the model, and what may be missing or left over all the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.lazy import LazyTensor
from gradprobe.problems.weights.names import Names, match
from gradprobe.problems.weights.refusals import count, shortened
from gradprobe.problems.weights.state import is_extra


@dataclass
class Fit:
    """How a file fits a model.

    Attributes:
        want: Name -> tensor of the model.
        have: Name -> tensor of the file, read or not.
        names: Which is which.
        missing: Names of the model that the file lacks, but for what is tolerated.
        unexpected: Names of the file that the model lacks, but for what is tolerated.
        shapes: Names of the model whose tensor has another shape in the file.
        types: Names of the model whose tensor is of another kind in the file: integers for real numbers.
        tied: Tolerated missing name -> the name of the model that has the same tensor.
        kept: Tolerated missing names that stay as they are.
        unsaved: Name of the file -> buffer of the model that it does not save: tolerated if the values are equal.
        notes: What was tolerated or changed.
    """

    want: Mapping[str, Any]
    have: Mapping[str, Any]
    names: Names
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    unsaved: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether all of the file fits all of the model."""
        return not (self.missing or self.unexpected or self.shapes or self.types)

    @property
    def matched(self) -> list[str]:
        """Names of the model whose tensor is in the file with the same shape and kind."""
        wrong = {*self.shapes, *self.types}
        return [n for n in self.want if n in self.names.pairs and n not in wrong]


def shape_of(value: Any) -> list[int] | None:
    """Shape of a tensor, read or not; None for an extra state."""
    return list(value.shape) if isinstance(value, (torch.Tensor, LazyTensor)) else None


def compare(module: nn.Module, have: Mapping[str, Any], strip: str) -> Fit:
    """Compare names, shapes and types; no tensor is read.

    Args:
        module: The model.
        have: State dict of the file.
        strip: As in ``names.match``.

    Raises:
        UsageError: The model has no weights yet: lazy modules, or the meta device.
    """
    want = _weights(module)
    names = match({k: shape_of(v) for k, v in want.items()}, {k: shape_of(v) for k, v in have.items()}, strip)
    fit = Fit(want, have, names)
    used = set(names.pairs.values())
    for name in (n for n in want if n in names.pairs):
        there = names.pairs[name]
        if shape_of(want[name]) != shape_of(have[there]):
            fit.shapes.append(name)
        elif not is_extra(name) and _kind(want[name].dtype) != _kind(have[there].dtype):
            fit.types.append(name)
    fit.missing = [n for n in want if n not in names.pairs]
    fit.unexpected = [n for n in have if n not in used]
    _say_changes(fit)
    _tolerate_missing(fit)
    _tolerate_unexpected(fit, module)
    return fit


def _weights(module: nn.Module) -> dict[str, Any]:
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"a checkpoint is loaded into a torch.nn.Module, not into a {type(module).__name__}."
        )
    want = module.state_dict(keep_vars=True)
    lazy = [n for n, v in want.items() if nn.parameter.is_lazy(v)]
    if lazy:
        raise UsageError(
            f"the model has {count(len(lazy), 'lazy tensor')} without a shape ({shortened(lazy)}); run it once on a "
            "batch before loading weights."
        )
    meta = [n for n, v in want.items() if isinstance(v, torch.Tensor) and v.is_meta]
    if meta:
        raise UsageError(
            f"the model has {count(len(meta), 'tensor')} on the meta device ({shortened(meta)}), with no numbers; "
            "build it on a real one, or call model.to_empty(device='cpu') first."
        )
    if not want:
        raise UsageError("the model has no weights, so no checkpoint fits it.")
    return want


def _kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "real" if dtype.is_floating_point else "whole"


def _say_changes(fit: Fit) -> None:
    names = fit.names
    if names.stripped:
        fit.notes.append(f"The prefix {names.stripped!r} of the names in the file was stripped.")
    if names.added:
        fit.notes.append(f"The prefix {names.added!r} was put before the names in the file.")
    if names.inner:
        fit.notes.append(
            f"Parts of wrappers were taken out of names in the file: {shortened(list(names.inner))}."
        )
    if names.renamed:
        name, there = next(iter(names.renamed.items()))
        fit.notes.append(f"{count(len(names.renamed), 'name')} with another ending: {there!r} is {name!r}.")


def _tolerate_missing(fit: Fit) -> None:
    """Tied tensors that the file holds under their other name, and counters that old files lack."""
    place = {memory_of(fit.want[n]): n for n in fit.names.pairs if not is_extra(n)}
    for name in fit.missing:
        if not is_extra(name) and (other := place.get(memory_of(fit.want[name]))) is not None:
            fit.tied[name] = other
        elif name.rsplit(".", 1)[-1] == "num_batches_tracked" and fit.names.pairs:
            fit.kept.append(name)
    if fit.tied:
        name, other = next(iter(fit.tied.items()))
        fit.notes.append(
            f"{count(len(fit.tied), 'tied tensor')} in the file under another name: {name!r} is {other!r}."
        )
    if fit.kept:
        fit.notes.append(
            f"{count(len(fit.kept), 'counter')} num_batches_tracked not in the file, as in old ones: kept as in the "
            "model."
        )
    fit.missing = [n for n in fit.missing if n not in fit.tied and n not in fit.kept]


def memory_of(tensor: torch.Tensor) -> Any:
    """What tied tensors share; a tensor without elements is tied to none but itself."""
    if not tensor.numel():
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _tolerate_unexpected(fit: Fit, module: nn.Module) -> None:
    """Counters of averaged models, buffers that are not saved any more, and what the model itself ignores."""
    if not fit.names.pairs:
        return
    buffers = dict(module.named_buffers())
    patterns = [re.compile(p) for p in getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()]

    def unsaved(name: str) -> bool:
        return _bare(name, fit.names) in buffers

    reasons: list[tuple[str, Callable[[str], bool]]] = [
        ("the counter of an averaged model (SWA, EMA)", lambda n: n.rsplit(".", 1)[-1] == "n_averaged"),
        ("what the model's class says to ignore", lambda n: any(p.search(n) for p in patterns)),
        ("a buffer that the model does not save, with the same values", unsaved),
    ]
    for reason, holds in reasons:
        found = [n for n in fit.unexpected if holds(n)]
        if found:
            fit.notes.append(f"Left out of the file: {shortened(found)} ({reason}).")
        fit.unsaved |= {b: buffers[_bare(b, fit.names)] for b in found if holds is unsaved}
        fit.unexpected = [n for n in fit.unexpected if n not in found]


def _bare(name: str, names: Names) -> str:
    return names.added + name.removeprefix(names.stripped)
