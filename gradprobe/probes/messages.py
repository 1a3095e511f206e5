"""What this process and its workers tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from gradprobe.probes.settings import Settings
from gradprobe.store.schema import Unit
from gradprobe.store.state import State

_PRECISIONS = (
    "cudnn.allow_tf32",
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)
"""Of ``torch.backends``, in the order of setting: older switches before newer ones, and general ones before those
that follow them."""


@dataclass(frozen=True)
class TorchState:
    """Settings of torch that numbers depend on, taken over from the parent.

    Attributes:
        threads: Threads of torch.
        dtype: The default type.
        matmul: The older switch for the precision of products; None where the newer ones are in use.
        precisions: The precisions of ``torch.backends``; without an older switch that the newer ones replace.
        deterministic: Whether operations that are not deterministic are refused (or warned of).
        warn_only: Whether they are warned of.
    """

    threads: int
    dtype: torch.dtype
    matmul: str | None
    precisions: Mapping[str, Any]
    deterministic: bool
    warn_only: bool

    @classmethod
    def here(cls, threads: int) -> TorchState:
        """Those of this process, with another number of threads."""
        found = {name: _precision(name) for name in _PRECISIONS}
        return cls(
            threads,
            torch.get_default_dtype(),
            _matmul(),
            {name: value for name, value in found.items() if value is not None},
            *_deterministic(),
        )

    def set(self) -> None:
        """Make them this process's."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        if self.matmul is not None and self.matmul != _matmul():
            torch.set_float32_matmul_precision(self.matmul)
        for name, value in self.precisions.items():
            if value != _precision(name):
                path, _, switch = name.rpartition(".")
                setattr(attrgetter(path)(torch.backends) if path else torch.backends, switch, value)
        if (self.deterministic, self.warn_only) != _deterministic():
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)


def _deterministic() -> tuple[bool, bool]:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled, torch.is_deterministic_algorithms_warn_only_enabled()


def _matmul() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses to read an older switch that disagrees with the newer ones
        return None


def _precision(name: str) -> Any:
    try:
        return attrgetter(name)(torch.backends)
    except (AttributeError, RuntimeError):  # this torch has no such switch; or likewise
        return None


@dataclass(frozen=True)
class Job:
    """One unit to compute.

    Attributes:
        task: The pickled task, so that one which cannot be unpickled is an answer and not a dead worker.
        settings: What all units of the run share.
        path: The run directory; states of the unit go there, if this run is what the worker finds there.
        identity: The run's.
        final: Whether the final state is kept.
        start: The state to go on from, for a worker that does not see the directory.
    """

    task: bytes
    settings: Settings
    path: str | None
    identity: Mapping[str, Any]
    final: bool
    start: State | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Attributes:
        unit: The unit, if it was finished.
        final: Its final state, likewise.
        state: The state in which it was stopped, unless the worker has saved it with the run itself.
        refused: The sentence of a usage error.
        crashed: The traceback of any other error.
        lost: Why there is no answer from the worker itself.
    """

    unit: Unit | None = None
    final: State | None = None
    state: State | None = None
    refused: str = ""
    crashed: str = ""
    lost: str = ""


@dataclass
class Signals:
    """Memory that the parent and its own workers share; without locks, which a killed worker would keep.

    Attributes:
        stop: Set by the parent: finish the block and stop.
        copies: For each worker, copies done in the unit at hand.
        started: For each worker, whether it came to life.
    """

    stop: Any
    copies: Any
    started: Any
