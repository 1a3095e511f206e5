"""Sharing units out among workers; this process alone stores them."""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import numpy as np

from gradprobe.core.errors import UsageError
from gradprobe.probes.crew import Crew
from gradprobe.probes.interrupt import Stop, Stopped
from gradprobe.probes.keep import Groups
from gradprobe.probes.messages import Answer, Job
from gradprobe.probes.plan import Task
from gradprobe.probes.running import wanted
from gradprobe.probes.settings import Settings
from gradprobe.store.run import RunStore
from gradprobe.store.saver import Saver
from gradprobe.store.schema import Unit

POLL = 0.2
"""Seconds between two looks at progress and signals."""


class WorkerError(RuntimeError):
    """An error in a worker, with its traceback there."""


def share_out(
    crew: Crew,
    tasks: Sequence[Task],
    settings: Settings,
    store: RunStore,
    groups: Groups,
    report: Callable[[int, str], None],
    stop: Stop,
) -> None:
    """Have a crew compute tasks.

    A unit whose worker dies is given to another, which goes on from the last state that was saved; after a
    few deaths it is stored as failed, and the rest goes on.

    Args:
        crew: The workers.
        tasks: What to compute.
        settings: What all of them share.
        store: The run.
        groups: Told of every unit that is stored.
        report: Called with copies done in all and with what was finished or runs.
        stop: Whether to stop.

    Raises:
        Stopped: A stop was asked for.
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
            running[crew.submit(_job(task, settings, store, crew))] = task
        label = str(next(iter(running.values())).key) if running else ""
        for future in wait(running, POLL, FIRST_COMPLETED).done:
            task = running.pop(future)
            label = str(task.key)
            answer = crew.settle(future)
            deaths[label] += bool(answer.lost)
            if answer.lost and deaths[label] < crew.chances:
                waiting.appendleft(task)
            elif _kept(answer, task, settings, store):
                done += settings.copies_of(task.fixed)
                groups.finished(task)
        report(done + crew.copies(), label)
    if stop.asked:
        groups.stopped()
        raise Stopped


def _saver(task: Task, settings: Settings, store: RunStore) -> Saver:
    return store.saver(wanted(task, settings), settings.copies // settings.block)


def _job(task: Task, settings: Settings, store: RunStore, crew: Crew) -> Job:
    assert store.info is not None
    shared = store.path is not None and crew.local
    start = None if shared or task.fixed else _saver(task, settings, store).load()
    path = None if store.path is None else str(store.path.resolve())
    final = store.keeps_sums(task.key)
    return Job(pickle.dumps(task), settings, path, store.info.identity, final, start)


def _kept(answer: Answer, task: Task, settings: Settings, store: RunStore) -> bool:
    """Keep what an answer brings; return whether its unit is done with.

    Raises:
        UsageError: The worker refuses the unit.
        WorkerError: It failed.
    """
    if answer.refused:
        raise UsageError(answer.refused)
    if answer.crashed:
        raise WorkerError(f"{task.key}, in a worker:\n{answer.crashed}")
    saver = _saver(task, settings, store)
    unit = lost_unit(task, settings, answer.lost) if answer.lost else answer.unit
    if unit is None:
        if answer.state is not None:
            saver.save(answer.state)
        return False
    if answer.final is not None:
        saver.finish(answer.final)
    store.add(unit)
    if unit.status == "ok":
        saver.stored()
    return True


def lost_unit(task: Task, settings: Settings, why: str) -> Unit:
    """A failed unit in the place of one that no worker could finish."""
    of, steps = wanted(task, settings), settings.copies_of(task.fixed) // settings.block
    many, rows, width = len(of.references), len(of.readouts), len(of.parameters)

    def empty(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan)

    return Unit(
        key=of.key,
        readouts=of.readouts,
        parameters=of.parameters,
        block=of.block,
        references=of.references,
        dot=empty(many, rows, width, steps),
        sqnorm=empty(rows, width, steps),
        block_sqnorm=empty(rows, width, steps),
        reference_sqnorm=empty(many, width),
        reference_block_sqnorm=empty(many, width),
        reference_blocks=empty(many, width),
        reference_dot=empty(many, width),
        forwards=empty(steps),
        equivalents=empty(steps),
        nonfinite=empty(steps),
        status="failed",
        note=why,
    )
