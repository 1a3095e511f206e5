"""Sharing units out among workers; this process alone stores them."""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from gradprobe.core.errors import UsageError
from gradprobe.probes.crew import Crew
from gradprobe.probes.interrupt import Stop, Stopped
from gradprobe.probes.keep import Groups
from gradprobe.probes.messages import Answer, Job
from gradprobe.probes.plan import Task
from gradprobe.probes.running import failed_unit, wanted
from gradprobe.probes.settings import Settings
from gradprobe.store.run import RunStore

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


def _job(task: Task, settings: Settings, store: RunStore, crew: Crew) -> Job:
    assert store.info is not None
    start = None
    if not task.fixed and (store.path is None or not crew.local):
        start = store.saver(wanted(task, settings), settings.blocks).load()
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
    saver = store.saver(wanted(task, settings), settings.blocks)
    unit = answer.unit
    if answer.lost:
        blocks = settings.copies_of(task.fixed) // settings.block
        unit = failed_unit(wanted(task, settings), blocks, answer.lost)
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
