"""Any executor of processes as a crew; its workers may be on other machines."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from types import TracebackType
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.probes.messages import Answer, Job, TorchState
from gradprobe.probes.parcel import Parcel
from gradprobe.probes.scheduler import spread
from gradprobe.probes.worker import GUARD, check_trial, try_out, work


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
        check_trial(answer)
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
