"""``probe``: quality of estimates, for every layer, over copies and seeds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from gradprobe.core.errors import UsageError, one_of, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.layer import Layer
from gradprobe.core.streams import seed_list
from gradprobe.core.told import Progress, told
from gradprobe.engine.memory import parse_memory, spare
from gradprobe.engine.preflight import fastest
from gradprobe.estimators._options import check_options
from gradprobe.estimators.base import Given, make_all
from gradprobe.estimators.bringing import every_layer
from gradprobe.estimators.keeping import check_storage
from gradprobe.probes.batches import probe_batches
from gradprobe.probes.checks import (
    check_plan,
    check_problem,
    layers_of,
    references,
    sizes,
)
from gradprobe.probes.consult import preflight
from gradprobe.probes.crew import check_crew, make_crew
from gradprobe.probes.dataset import Whole, check_same, whole_gradient
from gradprobe.probes.equivalents import with_shares
from gradprobe.probes.interrupt import Stop, Stopped, on_signals
from gradprobe.probes.keep import Groups, plan_products
from gradprobe.probes.plan import OWN, Plan, Task, make_plan
from gradprobe.probes.references import SMOOTHED_BY, Known, smoothed_ways, with_levels
from gradprobe.probes.request import backprop, run_info
from gradprobe.probes.running import wanted
from gradprobe.probes.settings import Settings, engine_key
from gradprobe.probes.share import share_out
from gradprobe.probes.unit import compute, room
from gradprobe.problems.problem import Problem
from gradprobe.store.run import RunStore
from gradprobe.store.schema import KEEP

WORTH_TIMING = 1000
"""Copies over all seeds from which on timing the engines pays."""


@told("copies")
def probe(
    problem: Problem,
    estimators: Sequence[Given] | Given = ("lr", "alr", "es", "aes"),
    *,
    copies: int | None = None,
    seeds: int | Sequence[int] = 5,
    block: int | None = None,
    layers: str | Sequence[str] | None = None,
    reference: str | Sequence[str] = "bp",
    dataset: Any = None,
    batches: Any = None,
    reference_copies: int | None = None,
    smoothed_by: str = "auto",
    root_seed: int = 0,
    engine: str = "auto",
    keep: str = "products",
    per_sample: bool = False,
    memory: str | int | None = None,
    storage: str = "float32",
    device: str | torch.device | None = None,
    noise_on: str = "device",
    out: str | Path | None = None,
    progress: Progress | bool | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    threads: int | None = None,
    **options: Any,
) -> xr.Dataset:
    """Probe estimators on a problem and store the moments that every statistic needs.

    Args:
        problem: The problem; it is left exactly as it was.
        estimators: Names with options, instances, or plans (``gp.plan``).
        copies: Monte-Carlo copies of each estimate, 1,000 by default; results hold every multiple of ``block`` up to
            it. A copy of a plan is a whole estimate: 4 by default where only plans are probed.
        seeds: Independent repetitions: how many, or which. Five is the best use of a fixed budget for telling
            noise from bias; intervals need at least three.
        block: Copies that share one noise key; the unit of noise and of storage. ``copies`` is a multiple. By default
            10; where only plans are probed 1.
        layers: Names, globs or class names of layers; all by default.
        reference: What to hold estimates against besides ``"bp"``: ``"smoothed"``, the backprop gradient
            averaged over the draw's noise; ``"dataset"``, the gradient of the mean loss over the whole data.
        dataset: The data behind ``"dataset"``: a DataLoader, a list of batches (inputs, target), or a pair of
            tensors. By default the split that :func:`~gradprobe.load_problem` drew the batch from. One forward
            and one backward over all of it, batch by batch, at the start of each call.
        batches: Probe several batches of equal size, each as a run of its own in ``out/batch-0``, ``out/batch-1``,
            ...: how many in all (those that follow the problem's own in the split that ``load_problem`` drew it
            from), or a list of the further ones (inputs, target). Their noise is independent; batch 0 is the run
            without ``batches``. See :func:`gradprobe.stats.data_or_copies`.
        reference_copies: Copies behind a smoothed reference, for each seed. By default 64 of a pathwise one, and
            as many as ``copies`` of one by scores.
        smoothed_by: How a smoothed reference is made. ``"pathwise"``: backprop under noise, which is the gradient
            of the smoothed loss only where backprop is the loss's derivative and the loss does not jump.
            ``"score"``: an independent run of the exact read-out (LR, ES), right for any loss, and noisier.
            ``"auto"`` (default): pathwise for the layers where it holds (see
            :func:`gradprobe.engine.continuity.pathwise_holds`), else by scores, as for spiking networks.
        root_seed: Root of all noise keys.
        engine: ``"auto"`` (for each layer the fastest of those that agree with the loop, timed once and kept
            with the run; short probes are not timed), ``"loop"``, ``"tile"`` (activation noise; weight noise
            takes the loop) or ``"vmap"``; after one of the last three also "channels_last" (images so in
            memory), "x10" (copies in one call) and, not for tile, "graph" (only what depends on the noise runs).
        keep: What to keep besides moments. ``"products"``: the products of the seeds' final directions
            (``seed_product``), from their sums, which are scratch. ``"sums"``: the sums themselves too, so that
            the same call with more copies goes on from there. ``"moments"``: nothing else. A run that is
            there keeps at least what it kept.
        per_sample: Store what each sample contributes too (``sample_sqnorm``, ``sample_product``,
            ``sample_loss``), as :func:`gradprobe.stats.allocate` needs it; no further forwards. Layers must credit
            each sample with its own loss. A run that has it keeps it; of one that lacks it, units are computed anew.
        memory: What a probe may use besides the model, such as ``"2GiB"`` or a number of bytes; half of what
            is free by default. ``workers`` share it; each worker of an ``executor`` may use that much. Fewer
            copies run at once where it is little (blocks are read in parts); the numbers stay the same up to
            rounding. Where memory runs out all the same, calls are halved.
        storage: How a copy's noise, and the inputs that it makes noisy, are kept from its forward until they are
            read: ``"float32"`` (as they are), or as their signs, ``"int8"`` (a quarter) or ``"bits"`` (a 32nd). Signs
            are kept where every read-out of a draw needs no more, as ALR's and AES's do (not where LR reads the same
            draw); estimates are the same, bit for bit. Results have ``kept_bytes`` and ``plain_bytes``.
        device: Where to run, such as ``"cuda"``: a copy of the model is made there. By default where the model
            is.
        noise_on: ``"device"`` (the numbers then belong to that kind of GPU) or ``"cpu"`` (slower; the same
            numbers on every machine).
        out: Run directory; one that holds a run of the same identity is added to. In memory by default.
        progress: None (default): a line in a notebook that is written over, nothing elsewhere. True: a bar in a
            terminal too. False: nothing. A function: called with (copies done, copies in all, what is running).
        workers: Processes that share the units; by default this one alone. The numbers are bitwise those of
            one process that runs as many threads. In a script, call probe under
            ``if __name__ == "__main__":``.
        executor: In place of ``workers``, any :class:`concurrent.futures.Executor` of processes, here or on
            other machines, such as Dask's ``client.get_executor()``. Only this process writes to ``out``. A
            stop cancels what is pending and abandons what runs there.
        threads: Threads of torch in each worker, one by default.
        **options: Options for every estimator that has them, such as ``sigma=0.01``.

    A quick look (see :func:`gradprobe.doctor`) comes first: what it refuses is an error, its warnings are in
    ``attrs["doctor"]``, and all that it saw in ``attrs["doctor_table"]``.

    Returns:
        Dataset as described in :mod:`gradprobe.store.schema`; with ``batches`` one of all of them, as described in
        :mod:`gradprobe.store.batches`. After Ctrl-C (SIGINT) or SIGTERM the block at
        hand is finished and what there is is returned, with ``attrs["stopped"]`` 1; with ``out`` the same
        call goes on from there. A second signal stops at once.

    Raises:
        UsageError: Something unknown or impossible was asked for; nothing has been written then.

    Example:
        >>> small = gp.probe(problem, ["lr", "es"], copies=20, seeds=3, layers="fc")
        >>> small.sizes["copies"], small["copies"].values.tolist()
        (2, [10, 20])
    """
    assert not isinstance(progress, bool)  # @told has made a function of it
    given = {k: v for k, v in locals().items() if k not in ("problem", "batches", "options")} | options
    if batches is not None:
        return probe_batches(probe, problem, batches, **given)
    check_problem(problem)
    made = make_all(estimators, **options)
    check_options(made, options, _OWN_OPTIONS)
    copies, block = sizes(made, copies, block)
    root_seed = whole("root_seed", root_seed, 0)
    reference_copies = None if reference_copies is None else whole("reference_copies", reference_copies, 4)
    one_of("smoothed_by", smoothed_by, SMOOTHED_BY)
    asked = references(reference)
    one_of("noise_on", noise_on, ("device", "cpu"))
    numbers = seed_list(seeds)
    one_of("keep", keep, KEEP)
    one_of("per_sample", per_sample, (True, False))
    check_crew(workers, executor, threads)
    check_storage(storage)
    size = parse_memory(memory)
    problem = problem if device is None else problem.to(device)
    with untouched_globals(), problem.frozen():
        problem.refresh()
        chosen = layers_of(problem, layers)
        found = layers_of(problem)
        gradient = backprop(problem, found)
        probed, levels = every_layer([item.estimator for item in made], problem, chosen)
        plan = make_plan(problem, [*probed, *levels], made, numbers)
        store = RunStore(out)
        held = store.references(references([*asked, "smoothed"]) if levels else asked)
        apart = store.per_sample(per_sample)
        todo = _missing(plan, block, copies, held, store, apart)
        whole_data = _whole(problem, found, held, dataset, store, progress)
        known = {"bp": gradient} | ({"dataset": whole_data.gradient} if whole_data is not None else {})
        known = with_levels(problem, known, levels)
        settings = Settings(
            block,
            copies,
            root_seed,
            held,
            reference_copies,
            engine=engine,
            memory=size,
            sharers=max(min(workers or 1, len(todo)), 1),
            drawn_on=noise_on,
            per_sample=apart,
            storage=storage,
        )
        ways = _smoothed(problem, plan, smoothed_by, store) if "smoothed" in held else {}
        settings = replace(settings, scored=frozenset(k for k, way in ways.items() if way == "score"))
        check_plan(problem, plan, settings, found)
        info = run_info(problem, [*probed, *levels], known, plan, settings, numbers, layers)
        info.facts |= {} if whole_data is None else {"dataset": whole_data.facts}
        info.facts |= preflight(problem, made, chosen, gradient, size) if todo else {"doctor": []}
        info.configuration["keep"] = store.keep(keep)
        info.products = plan_products(plan, settings, info.keep)
        problem.limit_memory(spare(problem.device, size))
        info.engines = _engines(problem, plan, settings, store.engines())
        info.smoothed = ways
        settings = with_shares(settings, problem, plan) if todo else settings
        hired = make_crew(workers, executor, threads, problem, known, todo) if todo else None
        with hired or nullcontext() as crew:
            settings = replace(settings, engines=store.begin(info).engines)
            with on_signals() as stop, suppress(Stopped):
                groups = Groups(plan.tasks, todo, settings, store)
                report = _report(progress, sum(settings.copies_of(task.fixed) for task in todo))
                if crew is not None:
                    share_out(crew, todo, settings, store, groups, report, stop)
                else:
                    compute_here(problem, todo, known, settings, store, groups, report, stop)
                store.tidy()
    ds = store.dataset()
    if stop.asked:
        ds.attrs["stopped"] = 1
    return ds


def _whole(
    problem: Problem,
    layers: Sequence[Layer],
    references: Sequence[str],
    dataset: Any,
    store: RunStore,
    progress: Progress | None,
) -> Whole | None:
    """The gradient over the data set, if it is among the references."""
    if "dataset" not in references:
        if dataset is not None:
            raise UsageError("dataset= is for the reference 'dataset'; add reference=('bp', 'dataset').")
        return None
    found = whole_gradient(
        problem, layers, dataset, lambda label: None if progress is None else progress(0, 0, label)
    )
    check_same(found, store.facts().get("dataset"), store.path)
    return found


def _smoothed(problem: Problem, plan: Plan, wish: str, store: RunStore) -> dict[str, str]:
    """How smoothed references are made; in runs that do not say so they were pathwise."""
    known = store.smoothed()
    before = "smoothed" in store.references(()) and not known
    return smoothed_ways(problem, plan, "pathwise" if before and wish == "auto" else wish, known)


def _report(progress: Progress | None, total: int) -> Callable[[int, str], None]:
    return lambda done, label: None if progress is None else progress(done, total, label)


_OWN_OPTIONS = set(inspect.signature(probe).parameters) - {"problem", "options"}


def _engines(problem: Problem, plan: Plan, settings: Settings, known: Mapping[str, str]) -> dict[str, str]:
    """The fastest engine of each kind of unit that has none yet; none if the user chose, or if it is not worth it."""
    found = dict(known)
    seeds = len({task.key.seed for task in plan.tasks if task.draw is not None})
    if settings.engine != "auto" or settings.copies * seeds < WORTH_TIMING:
        return found
    for task in plan.tasks:
        if task.draw is not None and (key := engine_key(task.draw, task.noisy)) not in found:
            copies, most = settings.copies * seeds, room(problem, task, settings)
            found[key] = str(fastest(problem, task.draw, task.noisy, settings.block, copies, most))
    return found


def _missing(
    plan: Plan, block: int, copies: int, references: Sequence[str], store: RunStore, per_sample: bool
) -> list[Task]:
    """What of a plan is not stored yet.

    Raises:
        UsageError: References are asked for of fewer copies than there are without them: nobody would see them.
    """
    found = []
    for task in plan.tasks:
        names = list(task.readouts) or [OWN]
        held, extras = task.held(references), task.extras(per_sample)
        done = store.done(task.key, names, block if task.fixed else copies, held, extras)
        if not set(names) <= done:
            lacking = [name for name in names if name not in done]
            most = store.most(task.key, lacking)
            unheld = set(lacking) - store.done(task.key, lacking, copies, held)
            if not task.fixed and most > copies and unheld:
                raise UsageError(
                    f"the run holds {most} copies without the reference that is new; ask for at least as many."
                )
            readouts = {name: r for name, r in task.readouts.items() if name not in done}
            found.append(replace(task, readouts=readouts))
    return found


def compute_here(
    problem: Problem,
    tasks: Sequence[Task],
    known: Known,
    settings: Settings,
    store: RunStore,
    groups: Groups,
    report: Callable[[int, str], None],
    stop: Stop,
) -> None:
    """Compute tasks in this process; the arguments are those of :func:`share_out`.

    Raises:
        Stopped: A stop was asked for.
    """
    done = 0
    label = ""

    def tick(copies: int) -> None:
        nonlocal done
        done += copies
        report(done, label)
        stop.check()

    try:
        for task in tasks:
            label = str(task.key)
            saver = store.saver(wanted(task, settings), settings.blocks)
            unit = compute(problem, task, known, settings, tick, saver)
            store.add(unit)
            if unit.status == "ok":
                saver.stored()
            groups.finished(task)
            stop.check()
    except Stopped:
        groups.stopped()
        raise
