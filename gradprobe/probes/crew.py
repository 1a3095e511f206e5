"""Where units are computed: worker processes of one's own, or any executor."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from gradprobe.core.errors import UsageError, whole
from gradprobe.probes.foreign import Foreign
from gradprobe.probes.local import Local
from gradprobe.probes.messages import Answer, Job, TorchState
from gradprobe.probes.parcel import pack
from gradprobe.probes.plan import Task
from gradprobe.probes.references import Known
from gradprobe.problems.problem import Problem


class Crew(Protocol):
    """Workers that take jobs."""

    chances: int
    """How often a unit is given to a worker before it counts as failed."""
    local: bool
    """Whether the workers see this machine's files."""

    def __enter__(self) -> Crew: ...

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def free(self) -> bool:
        """Whether another job can be taken."""
        ...

    def submit(self, job: Job) -> Future[Answer]:
        """Give a job to a worker."""
        ...

    def settle(self, future: Future[Answer]) -> Answer:
        """The answer of a future that is done."""
        ...

    def copies(self) -> int:
        """Copies done in units that are not finished."""
        ...

    def stop(self) -> bool:
        """Ask for a stop; return whether what runs will answer soon."""
        ...


def check_crew(workers: Any, executor: Any, threads: Any) -> None:
    """Refuse a wish for workers that cannot be served.

    Raises:
        UsageError: Both kinds, no number, no executor, or threads without workers.
    """
    if workers is not None and executor is not None:
        raise UsageError("give workers= or executor=, not both: an executor brings its own workers.")
    if workers is not None:
        whole("workers", workers)
    if executor is not None:
        _check_executor(executor)
    if threads is not None:
        whole("threads", threads)
        if executor is None and workers in (None, 1):
            raise UsageError("threads= is for workers; in this process use torch.set_num_threads.")
    if workers not in (None, 1) and getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a worker that runs its parent's script again; the parent says what to do about it


def make_crew(
    workers: int | None,
    executor: Executor | None,
    threads: int | None,
    problem: Problem,
    known: Known,
    tasks: Sequence[Task],
) -> Crew | None:
    """The workers that a user asks for, with the problem packed for them; None: this process.

    Args:
        workers: How many processes, or None.
        executor: The user's own, or None.
        threads: Threads of torch in each worker; one by default.
        problem: The problem.
        known: Its references without noise.
        tasks: What is to be computed.

    Raises:
        UsageError: The problem or an estimator cannot be pickled.
    """
    if executor is None and workers in (None, 1):
        return None
    parcel = pack(problem, known, tasks)
    state = TorchState.here(threads or 1)
    if executor is not None:
        return Foreign(executor, parcel, state)
    assert workers is not None
    return Local(min(workers, len(tasks)), parcel, state)


def _check_executor(executor: Any) -> None:
    if isinstance(executor, ThreadPoolExecutor):
        raise UsageError(
            "threads of one process would wait for each other, because torch's switches belong to the process; use "
            "workers=N, or an executor of processes."
        )
    if not isinstance(executor, Executor) or isinstance(executor, type):
        hint = "; use client.get_executor()" if hasattr(executor, "get_executor") else ""
        kind = executor.__name__ if isinstance(executor, type) else type(executor).__name__
        raise UsageError(f"executor must be a concurrent.futures.Executor, not {kind}{hint}.")
