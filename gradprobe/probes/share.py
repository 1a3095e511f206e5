"""Sharing units out among workers; this process alone stores them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import numpy as np

from gradprobe.core.errors import UsageError
from gradprobe.probes.crew import Crew
from gradprobe.probes.interrupt import Stop
from gradprobe.probes.plan import OWN, Task
from gradprobe.probes.unit import Settings
from gradprobe.probes.worker import Answer
from gradprobe.store.schema import Unit

POLL = 0.2
"""Seconds between two looks at progress and signals."""


class WorkerError(RuntimeError):
    """An error in a worker, with its traceback there."""


def share_out(
    crew: Crew,
    tasks: Sequence[Task],
    settings: Settings,
    copies: Callable[[Task], int],
    add: Callable[[Unit], None],
    report: Callable[[int, str], None],
    stop: Stop,
) -> None:
    """Have a crew compute tasks.

    A unit whose worker dies is given to another; after a few deaths it is stored as failed, and the rest
    goes on.

    Args:
        crew: The workers.
        tasks: What to compute.
        settings: What all of them share.
        copies: Copies that a task needs.
        add: Stores a unit.
        report: Called with copies done in all and with what was finished or runs.
        stop: Whether to stop.

    Raises:
        UsageError: A worker refuses a unit, or the executor is broken.
        WorkerError: Anything else that went wrong in a worker.
    """
    waiting, running = deque(tasks), dict[Future[Answer], Task]()
    deaths: Counter[str] = Counter()
    done = 0
    while waiting or running:
        if stop.asked:
            waiting.clear()
            if not crew.stop():
                running = {f: task for f, task in running.items() if f.done()}
        while waiting and crew.free():
            task = waiting.popleft()
            running[crew.submit(task, settings)] = task
        label = str(next(iter(running.values())).key) if running else ""
        for future in wait(running, POLL, FIRST_COMPLETED).done:
            task = running.pop(future)
            label = str(task.key)
            answer = crew.settle(future)
            deaths[label] += bool(answer.lost)
            unit = _unit_of(answer, task, deaths[label] >= crew.chances, settings)
            if unit is not None:
                add(unit)
                done += copies(task)
            elif answer.lost:
                waiting.appendleft(task)
        report(done + crew.copies(), label)


def _unit_of(answer: Answer, task: Task, given_up: bool, settings: Settings) -> Unit | None:
    if answer.refused:
        raise UsageError(answer.refused)
    if answer.crashed:
        raise WorkerError(f"{task.key}, in a worker:\n{answer.crashed}")
    if answer.lost and given_up:
        return lost_unit(task, settings, answer.lost)
    return answer.unit


def lost_unit(task: Task, settings: Settings, why: str) -> Unit:
    """A failed unit in the place of one that no worker could finish."""
    fixed = task.estimator is not None and not task.estimator.stochastic
    names = tuple(task.readouts) or (OWN,)
    parameters = tuple(p for layer in task.layers for p in layer.parameters)
    references = settings.references if task.draw is not None else ("bp",)
    steps = 1 if fixed else settings.copies // settings.block

    def empty(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan)

    return Unit(
        key=task.key,
        readouts=names,
        parameters=parameters,
        block=settings.block,
        references=references,
        dot=empty(len(references), len(names), len(parameters), steps),
        sqnorm=empty(len(names), len(parameters), steps),
        block_sqnorm=empty(len(names), len(parameters), steps),
        reference_sqnorm=empty(len(references), len(parameters)),
        reference_block_sqnorm=empty(len(references), len(parameters)),
        reference_blocks=empty(len(references), len(parameters)),
        reference_dot=empty(len(references), len(parameters)),
        forwards=empty(steps),
        equivalents=empty(steps),
        nonfinite=empty(steps),
        status="failed",
        note=why,
    )
