"""Where units are computed: worker processes of one's own, or any executor."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from ctypes import c_bool, c_longlong
from types import TracebackType
from typing import Any, Protocol

import torch

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.provenance import environment
from gradprobe.probes.parcel import Parcel, pack
from gradprobe.probes.plan import Task
from gradprobe.probes.scheduler import spread
from gradprobe.probes.worker import Answer, Job, Signals, TorchState, begin, try_out, work
from gradprobe.problems.problem import Problem

GUARD = 'if __name__ == "__main__":'


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
    gradient: Mapping[str, torch.Tensor],
    tasks: Sequence[Task],
) -> Crew | None:
    """The workers that a user asks for, with the problem packed for them; None: this process.

    Args:
        workers: How many processes, or None.
        executor: The user's own, or None.
        threads: Threads of torch in each worker; one by default.
        problem: The problem.
        gradient: Its backprop gradient.
        tasks: All units of the plan.

    Raises:
        UsageError: The problem or an estimator cannot be pickled.
    """
    if executor is None and workers in (None, 1):
        return None
    parcel = pack(problem, gradient, tasks)
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


class Local:
    """Worker processes of one's own, each in a pool of one: a death costs one unit and nobody else's.

    Args:
        size: How many.
        parcel: What each of them needs.
        state: Settings of torch in them.
    """

    chances = 3
    local = True

    def __init__(self, size: int, parcel: Parcel, state: TorchState) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.parcel, self.state = parcel, state
        self.signals = Signals(
            self.context.RawValue(c_bool, False),
            self.context.RawArray(c_longlong, size),
            self.context.RawArray(c_bool, size),
        )
        self.pools: list[ProcessPoolExecutor | None] = [None] * size
        self.loaded = [False] * size
        self.busy: dict[Future[Any], int] = {}

    def __enter__(self) -> Local:
        try:
            self._try_out()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.busy:
            self._kill()
        for pool in filter(None, self.pools):
            pool.shutdown(wait=True, cancel_futures=True)

    def free(self) -> bool:
        """Whether a worker is idle."""
        return len(self.busy) < len(self.pools)

    def submit(self, job: Job) -> Future[Answer]:
        """Give a job to an idle worker, a new one if it died meanwhile."""
        index = min(set(range(len(self.pools))) - set(self.busy.values()))
        self.signals.copies[index] = 0
        args = (job, self.parcel.digest, self.state)
        try:
            future = self._send(index, work, *args, None if self.loaded[index] else self.parcel.data)
        except BrokenExecutor:
            self._bury(index)
            future = self._send(index, work, *args, self.parcel.data)
        self.loaded[index] = True
        self.busy[future] = index
        return future

    def settle(self, future: Future[Answer]) -> Answer:
        """The answer; if the worker died, a new one will take its place."""
        index = self.busy.pop(future)
        self.signals.copies[index] = 0
        try:
            return future.result()
        except BrokenExecutor:
            self._bury(index)
            return Answer(lost="its worker process died (killed, or out of memory)")

    def copies(self) -> int:
        """Copies done in units that are not finished."""
        return sum(self.signals.copies)

    def stop(self) -> bool:
        """Let every worker finish its block."""
        self.signals.stop.value = True
        return True

    def _try_out(self) -> None:
        """Have all workers start and unpack the problem.

        Raises:
            UsageError: One cannot.
        """
        data, digest = self.parcel.data, self.parcel.digest
        futures = [self._send(i, try_out, data, digest, self.state) for i in range(len(self.pools))]
        for index, future in enumerate(futures):
            try:
                _check(future.result())
            except BrokenExecutor as error:
                if not self.signals.started[index]:
                    raise UsageError(
                        "a worker ended before it had started; a script that uses workers= must call probe under "
                        f"{GUARD}"
                    ) from error
                raise UsageError(
                    "a worker died while it unpacked the problem (killed, or out of memory); use fewer workers."
                ) from error
            self.loaded[index] = True

    def _send(self, index: int, function: Any, *args: Any) -> Future[Any]:
        pool = self.pools[index]
        if pool is None:
            pool = ProcessPoolExecutor(1, self.context, begin, (index, self.signals))
            self.pools[index] = pool
            with _no_interrupts():
                return pool.submit(function, *args)
        return pool.submit(function, *args)

    def _bury(self, index: int) -> None:
        pool = self.pools[index]
        assert pool is not None
        pool.shutdown(wait=True)
        self.pools[index], self.loaded[index] = None, False

    def _kill(self) -> None:
        """End what runs at once; the store loses nothing by it."""
        for pool in filter(None, self.pools):
            for process in list((pool._processes or {}).values()):
                process.kill()


class Foreign:
    """An executor that the user made; its workers may be on other machines.

    A stop cancels what is pending and abandons what runs: its results are not waited for.

    Args:
        executor: The executor.
        parcel: What each worker needs; it goes along with every job, unless the executor can spread it.
        state: Settings of torch in the workers.
    """

    chances = 1
    local = False

    def __init__(self, executor: Executor, parcel: Parcel, state: TorchState) -> None:
        self.executor, self.parcel, self.state = executor, parcel, state
        self.data: Any = parcel.data
        self.running: set[Future[Answer]] = set()

    def __enter__(self) -> Foreign:
        try:
            self.data = spread(self.executor, self.parcel.data)
            answer = self.executor.submit(try_out, self.data, self.parcel.digest, self.state).result()
        except BrokenExecutor as error:
            raise UsageError(
                f"the executor's workers could not start; a script that uses one must call probe under {GUARD}"
            ) from error
        except (Exception, CancelledError) as error:
            raise UsageError(
                f"the executor cannot run gradprobe ({type(error).__name__}: {error}); its workers need the same "
                "gradprobe and torch."
            ) from error
        _check(answer)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for future in self.running:
            future.cancel()
        self.data = None

    def free(self) -> bool:
        """An executor keeps a queue of its own."""
        return True

    def submit(self, job: Job) -> Future[Answer]:
        """Give a job to the executor.

        Raises:
            UsageError: The executor takes no more.
        """
        try:
            future = self.executor.submit(work, job, self.parcel.digest, self.state, self.data)
        except RuntimeError as error:
            raise _broken(error) from error
        self.running.add(future)
        return future

    def settle(self, future: Future[Answer]) -> Answer:
        """The answer, or why there is none.

        Raises:
            UsageError: The executor is broken.
        """
        self.running.discard(future)
        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            raise _broken(error) from error
        except Exception as error:
            return Answer(lost=f"the executor gave it up ({type(error).__name__}: {error})")

    def copies(self) -> int:
        """Not known."""
        return 0

    def stop(self) -> bool:
        """Cancel what is pending; nothing else can be reached."""
        return False


def _broken(error: BaseException) -> UsageError:
    return UsageError(
        f"the executor has lost its workers ({type(error).__name__}); what was finished is kept with out=, and the "
        "same call goes on with a new executor."
    )


def _check(found: tuple[str, Answer]) -> None:
    version, answer = found
    own = environment()["gradprobe"]
    if answer.refused or answer.crashed:
        raise UsageError(answer.refused or f"a worker cannot run the problem: {_last_line(answer.crashed)}")
    if version != own:
        raise UsageError(f"the workers have gradprobe {version}, this process {own}; install the same there.")


def _last_line(trace: str) -> str:
    return trace.strip().rpartition("\n")[2]


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see a terminal's Ctrl-C, which is for their parent; here it only waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before: Sequence[Any] | set[Any] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
