"""Data whose rows are read, decoded and encoded only when a batch asks for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from gradprobe.core.hooks import map_tensors
from gradprobe.problems.data import Data, check_room, check_rows, check_size

Read = Callable[[int, int], tuple[Any, torch.Tensor]]
Pass = Callable[[int], Iterator[tuple[Any, torch.Tensor]]]
Encode = Callable[[Any, torch.Tensor], tuple[Any, torch.Tensor]]

KINDS = ("tensor", "image", "text", "words")


class LazyData(Data):
    """Data that are read on demand.

    Args:
        read: ``(first, size) -> (raw inputs, targets)`` of that many rows; images are PIL images, texts are
            strings, texts cut into words are lists of strings, everything else is tensors.
        size: How many rows there are.
        kind: What the raw inputs are: ``"tensor"``, ``"image"``, ``"text"`` or ``"words"``.
        encode: ``(raw inputs, targets) -> (inputs, targets)``, what a model is called with. A model that has a
            tokenizer or an image processor of its own replaces it (:meth:`encoded`).
        classes: Number of classes; None where targets are no classes.
        facts: What else a network may have to know.
        labelled: Whether the targets mean something; without labels only a model that makes its own targets
            (a language model) can be used.
        max_length: How many tokens a text is padded or cut to, if the user said so.
        unit: Whether ``encode`` gives pictures ``[N, C, H, W]`` in [0, 1], so that a model whose weights expect
            them normalised can do that; False also where it is not known.
        name: What to call the data in messages.
        once: Where data can only be read from their start: ``size -> `` all raw rows in one pass, in batches of
            that many (or as they come).
    """

    def __init__(
        self,
        read: Read,
        size: int,
        *,
        kind: str = "tensor",
        encode: Encode = lambda raw, targets: (raw, targets),
        classes: int | None = None,
        facts: Mapping[str, Any] | None = None,
        labelled: bool = True,
        max_length: int | None = None,
        unit: bool = False,
        name: str = "the data",
        once: Pass | None = None,
    ) -> None:
        given = {"read": read, "size": size, "kind": kind, "encode": encode, "classes": classes}
        given |= {
            "facts": dict(facts or {}),
            "labelled": labelled,
            "name": name,
            "whole": False,
            "max_length": max_length,
            "unit": unit,
            "once": once,
        }
        self.__dict__.update(given)  # the class is frozen

    read: Read
    encode: Encode
    size: int
    kind: str
    labelled: bool
    max_length: int | None
    unit: bool
    name: str
    once: Pass | None

    def __len__(self) -> int:
        return self.size

    @property
    def inputs(self) -> Any:
        """All inputs; every row is decoded."""
        return self.batch(len(self))[0]

    @property
    def targets(self) -> torch.Tensor:
        """All targets; every row is decoded."""
        return self.batch(len(self))[1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input."""
        found = self.batch(1)[0]
        return tuple(found.shape[1:]) if isinstance(found, torch.Tensor) else ()

    @property
    def offers(self) -> dict[str, Any]:
        """What a network's factory may ask for; the first row is decoded for its shape."""
        offered = dict(self.facts) | ({} if self.classes is None else {"classes": self.classes})
        shape = self.input_shape
        return offered | ({"input_shape": shape} if shape else {})

    def batch(self, size: int, first: int = 0) -> tuple[Any, torch.Tensor]:
        """``size`` samples from position ``first`` on; only these are read.

        Raises:
            UsageError: There are not that many, or they cannot be encoded.
        """
        check_size(size)
        check_room(size, first, len(self))
        return self.encode(*self.read(first, size))

    @property
    def through(self) -> Pass | None:
        """All batches in one pass, encoded; None where rows can be read from any position."""
        once = self.once
        return None if once is None else lambda size: (self.encode(*raw) for raw in once(size))

    def encoded(self, encode: Encode, *, labelled: bool | None = None, unit: bool = False) -> LazyData:
        """The same rows, encoded in another way.

        Args:
            encode: The other way.
            labelled: Whether it makes targets; as before by default.
            unit: Whether it gives pictures in [0, 1].
        """
        other = copy.copy(self)
        other.__dict__.update(
            encode=encode, labelled=self.labelled if labelled is None else labelled, unit=unit
        )
        return other


def lazy(data: Data) -> LazyData:
    """Any data as data that are read on demand."""
    if isinstance(data, LazyData):
        return data

    def read(first: int, size: int) -> tuple[Any, torch.Tensor]:
        check_rows("the data", data.inputs, data.targets)
        rows = slice(first, first + size)
        return map_tensors(lambda t: t[rows], data.inputs), data.targets[rows]

    return LazyData(read, len(data), classes=data.classes, facts=data.facts)
