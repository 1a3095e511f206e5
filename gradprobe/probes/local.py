"""Worker processes of one's own, on this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from ctypes import c_bool, c_longlong
from types import TracebackType
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.probes.messages import Answer, Job, Signals, TorchState
from gradprobe.probes.parcel import Parcel
from gradprobe.probes.worker import GUARD, begin, check_trial, try_out, work


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
                check_trial(future.result())
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
        with _no_interrupts():  # the first call of a pool starts its process
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
