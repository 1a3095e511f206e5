"""What runs in a worker: it unpacks the problem once and computes units; only the parent stores them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.provenance import environment
from gradprobe.probes.allocator import tune_allocator
from gradprobe.probes.interrupt import Stopped
from gradprobe.probes.messages import Answer, Job, Signals, TorchState
from gradprobe.probes.parcel import unpack
from gradprobe.probes.references import Known
from gradprobe.probes.running import wanted
from gradprobe.probes.unit import compute
from gradprobe.problems.problem import Problem
from gradprobe.store.info import RUN_FILE, read_info
from gradprobe.store.kept import Kept
from gradprobe.store.saver import Saver

GUARD = 'if __name__ == "__main__":'
"""What a script needs around a probe with workers: they read the script too."""


class _Here:
    """State of this worker process."""

    def __init__(self) -> None:
        self.turn = threading.Lock()  # torch's global switches serve one unit at a time
        self.digest = ""
        self.problem: Problem | None = None
        self.known: Known = {}
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
            self.problem, self.known = unpack(data, self.index)
            self.digest = digest
            self.frozen.enter_context(self.problem.frozen())  # for good: nobody changes its values here
            self.problem.clean_losses()
        return self.problem

    def run_of(self, job: Job) -> Kept | None:
        """What the run of a job holds, if this worker sees it."""
        path = Path(job.path or "")
        if job.path is None or not (path / RUN_FILE).is_file() or read_info(path).identity != job.identity:
            return None
        if self.path != path:
            self.path, self.kept = path, Kept(path)
        return self.kept


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
    saver = Saver(job.start)  # states go along with the answer, unless this worker sees the run
    with _caught() as answers, _turn(state):
        problem = _here.hold(digest, data)
        task = pickle.loads(job.task)
        run = _here.run_of(job)
        if run is not None:
            saver = run.saver(wanted(task, job.settings), job.settings.blocks, job.final)
        _count(-1)
        unit = compute(problem, task, _here.known, job.settings, _count, saver)
        answers.append(Answer(unit, final=saver.final if job.final and run is None else None))
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
