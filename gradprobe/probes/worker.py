"""What runs in a worker: it unpacks the problem once and computes units; only the parent stores them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.provenance import environment
from gradprobe.probes.allocator import tune_allocator
from gradprobe.probes.interrupt import Stopped
from gradprobe.probes.parcel import unpack
from gradprobe.probes.plan import Task
from gradprobe.probes.running import wanted
from gradprobe.probes.settings import Settings
from gradprobe.probes.unit import compute
from gradprobe.problems.problem import Problem
from gradprobe.store.info import RUN_FILE, read_info
from gradprobe.store.kept import Kept
from gradprobe.store.saver import Saver
from gradprobe.store.schema import Unit
from gradprobe.store.state import State

GUARD = 'if __name__ == "__main__":'
"""What a script needs around a probe with workers: they read the script too."""


@dataclass(frozen=True)
class TorchState:
    """Settings of torch that numbers depend on, taken over from the parent."""

    threads: int
    dtype: torch.dtype
    precision: str

    @classmethod
    def here(cls, threads: int) -> TorchState:
        """Those of this process, with another number of threads."""
        return cls(threads, torch.get_default_dtype(), torch.get_float32_matmul_precision())

    def set(self) -> None:
        """Make them this process's."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)


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


class _Here:
    """State of this worker process."""

    def __init__(self) -> None:
        self.turn = threading.Lock()  # torch's global switches serve one unit at a time
        self.digest = ""
        self.problem: Problem | None = None
        self.gradient: dict[str, torch.Tensor] = {}
        self.frozen = ExitStack()
        self.index = 0
        self.signals: Signals | None = None
        self.path: Path | None = None
        self.kept = Kept(None)

    def hold(self, digest: str, data: bytes | None) -> Problem:
        """The problem of a digest; the one before it is let go."""
        if self.problem is None or digest != self.digest:
            assert data is not None
            self.frozen.close()
            self.problem = None
            self.problem, self.gradient = unpack(data, self.index)
            self.digest = digest
            self.frozen.enter_context(self.problem.frozen())  # for good: nobody changes its values here
            self.problem.clean_losses()
        return self.problem

    def saver(self, job: Job, task: Task) -> Saver:
        """Where states of a unit go: to its run, or along with the answer."""
        path = Path(job.path or "")
        if job.path is None or not (path / RUN_FILE).is_file() or read_info(path).identity != job.identity:
            return Saver(job.start)
        if self.path != path:
            self.path, self.kept = path, Kept(path)
        blocks = job.settings.copies // job.settings.block
        return self.kept.saver(wanted(task, job.settings), blocks, job.final)


_here = _Here()


def begin(index: int, signals: Signals) -> None:
    """Set up a worker process of one's own; it ends with its parent, and leaves signals to it.

    Args:
        index: Which of the workers this is.
        signals: Memory shared with the parent.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    tune_allocator()
    _here.index, _here.signals = index, signals
    signals.started[index] = 1


def try_out(data: bytes, digest: str, state: TorchState) -> tuple[str, Answer]:
    """Unpack a problem, to see whether this worker can.

    Returns:
        The version of gradprobe here, and an answer that is empty if it can.
    """
    with _caught() as answers, _turn(state):
        _here.hold(digest, data)
    return environment()["gradprobe"], answers[0] if answers else Answer()


def check_trial(found: tuple[str, Answer]) -> None:
    """Look at what :func:`try_out` returned.

    Raises:
        UsageError: The worker cannot run the problem, or has another gradprobe.
    """
    version, answer = found
    own = environment()["gradprobe"]
    if answer.refused or answer.crashed:
        raise UsageError(answer.refused or f"a worker cannot run the problem: {_last_line(answer.crashed)}")
    if version != own:
        raise UsageError(f"the workers have gradprobe {version}, this process {own}; install the same there.")


def _last_line(trace: str) -> str:
    return trace.strip().rpartition("\n")[2]


def work(job: Job, digest: str, state: TorchState, data: bytes | None = None) -> Answer:
    """Compute a unit.

    Args:
        job: What to compute.
        digest: For which problem.
        state: Settings of torch.
        data: The packed problem; None if this worker was given it already.

    Returns:
        The unit, or why there is none; nothing at all after a stop in a worker that has saved its state.
    """
    saver = Saver()
    with _caught() as answers, _turn(state):
        problem = _here.hold(digest, data)
        task = pickle.loads(job.task)
        saver = _here.saver(job, task)
        _count(-1)
        unit = compute(problem, task, _here.gradient, job.settings, _count, saver)
        answers.append(Answer(unit, final=saver.final if job.final and type(saver) is Saver else None))
    return answers[0] if answers else Answer(state=saver.state)


def _count(copies: int) -> None:
    """Tell the parent of copies done (-1: start from 0); stop if it asks for that."""
    signals = _here.signals
    if signals is None:
        return
    signals.copies[_here.index] = 0 if copies < 0 else signals.copies[_here.index] + copies
    if signals.stop.value:
        raise Stopped


@contextmanager
def _turn(state: TorchState) -> Iterator[None]:
    """One unit at a time in this process, under the parent's settings of torch."""
    with _here.turn, untouched_globals():
        before = TorchState.here(torch.get_num_threads())
        state.set()
        try:
            yield
        finally:
            before.set()


@contextmanager
def _caught() -> Iterator[list[Answer]]:
    """Errors as answers: an exception of a class that the parent does not know would break the pool."""
    answers: list[Answer] = []
    try:
        yield answers
    except (Stopped, KeyboardInterrupt):
        pass
    except UsageError as error:
        answers.append(Answer(refused=str(error)))
    except Exception:
        answers.append(Answer(crashed=traceback.format_exc()))


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
