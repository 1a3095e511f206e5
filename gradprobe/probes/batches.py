"""A probe on several batches: an ordinary run for each, with noise of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.spec import canonical_json
from gradprobe.probes.checks import check_problem, layers_of, references
from gradprobe.probes.dataset import whole_gradient
from gradprobe.probes.request import backprop
from gradprobe.problems.origin import further
from gradprobe.problems.problem import Problem
from gradprobe.store.batches import (
    Batches,
    begun,
    check_folder,
    folder_of,
    join_batches,
    read_batches,
    write_batches,
)
from gradprobe.store.run import RunStore, open_run

Probe = Callable[..., xr.Dataset]


def root_of(root_seed: int, batch: int) -> int:
    """Root of the noise keys of a batch.

    Batch 0 has the root of a run without batches, so that it is that run; the others' are derived from it by a hash
    (BLAKE2b, 62 bits), so that the noise of different batches is independent and each can be run alone.
    """
    if not batch:
        return root_seed
    digest = hashlib.blake2b(canonical_json([root_seed, "batch", batch]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def probe_batches(
    probe: Probe,
    problem: Problem,
    batches: Any,
    *,
    out: str | Path | None,
    root_seed: int,
    device: str | torch.device | None,
    reference: str | Sequence[str],
    dataset: Any,
    layers: str | Sequence[str] | None,
    progress: Callable[[int, int, str], None] | None,
    **asked: Any,
) -> xr.Dataset:
    """Run a probe on each of several batches; the arguments are those of ``probe``.

    The backprop gradients of all batches are held at once (for the probed layers) until their products are known.

    Args:
        probe: The probe of one batch.
        problem: The problem on its first batch.
        batches: How many, or a list of the others; see :func:`gradprobe.problems.origin.further`.
        out: Folder of the runs; None keeps them in memory.
        root_seed: See :func:`root_of`.
        device: Where to run.
        reference: Names of the references.
        dataset: Of the reference ``"dataset"``; it is read once for all batches.
        layers: Which layers.
        progress: Told of the copies of all batches.
        **asked: Further arguments.

    Raises:
        UsageError: As ``probe``; or there are not that many batches, or the folder holds others.
    """
    check_problem(problem)
    root_seed = whole("root_seed", root_seed, 0)
    path = Path(out) if out is not None else None
    if path is not None:
        check_folder(path)
    problem = problem if device is None else problem.to(device)
    reference = reference if isinstance(reference, str) else list(reference)
    layers = layers if layers is None or isinstance(layers, str) else list(layers)
    asked |= {
        name: list(asked[name]) for name in ("estimators", "seeds") if isinstance(asked.get(name), Iterator)
    }
    held = references(reference)
    if path is not None:
        held = RunStore(folder_of(path, 0)).references(held)
    with untouched_globals():
        problem.refresh()
        makers = further(problem, batches)
        old = read_batches(path) if path is not None else None
        found = _products(makers, layers, old.products if old is not None else {}, root_seed)
        found = found.joined(old, path)
        if "dataset" in held:
            tell = (lambda label: progress(0, 0, label)) if progress is not None else (lambda label: None)
            with problem.frozen():
                dataset = whole_gradient(problem, layers_of(problem), dataset, tell)
    runs: dict[int, xr.Dataset] = {}
    written = False

    def note() -> None:
        nonlocal written
        if path is not None and not written:  # not before the first run is begun: it may refuse
            written = True
            write_batches(path, found)

    def told(batch: int) -> Callable[[int, int, str], None]:
        def tell(done: int, total: int, label: str) -> None:
            note()
            if progress is not None:
                progress(batch * total + done, len(makers) * total, f"batch {batch}: {label}" * bool(label))

        return tell

    broken_off = False
    for number, make in enumerate(makers):
        try:
            runs[number] = probe(
                make(),
                out=None if path is None else folder_of(path, number),
                root_seed=root_of(root_seed, number),
                reference=reference,
                dataset=dataset,
                layers=layers,
                progress=told(number),
                **asked,
            )
        except KeyboardInterrupt:  # before its first block; the batches that are done are not lost
            if not runs:
                raise
            broken_off = True
            break
        note()
        if "stopped" in runs[number].attrs:
            break
    if path is not None:
        runs |= {b: open_run(folder_of(path, b)) for b in begun(path) if b not in runs}
    ds = join_batches(dict(sorted(runs.items())), found.products)
    return ds.assign_attrs(stopped=1) if broken_off else ds


def _products(
    makers: Sequence[Callable[[], Problem]],
    layers: str | Sequence[str] | None,
    older: Collection[str],
    root_seed: int,
) -> Batches:
    """Inner products of the batches' gradients, in float64, of the layers that are probed or were before."""
    marks: list[dict[str, Any]] = []
    gradients = []
    for number, make in enumerate(makers):
        problem = make()
        marks.append(problem.fingerprints())
        _check_new(number, [mark["batch"] for mark in marks])
        with problem.frozen():
            asked = {layer.name for layer in layers_of(problem, layers)}
            wanted = [x for x in layers_of(problem) if x.name in asked or set(x.parameters) & set(older)]
            gradients.append(backprop(problem, wanted))
    products = {
        name: [[float((a[name].double() * b[name].double()).sum()) for b in gradients] for a in gradients]
        for name in gradients[0]
    }
    identity = {name: marks[0][name] for name in ("model", "loss")} | {"root_seed": root_seed}
    return Batches(identity, [mark["batch"] for mark in marks], products)


def _check_new(number: int, marks: Sequence[str]) -> None:
    """Refuse a batch that is there already: its gradient would say nothing new of the data.

    Raises:
        UsageError: It is the same as an earlier one.
    """
    same = list(marks).index(marks[number])
    if same != number:
        own = " (0 is the problem's own, which batches= must not hold)" if same == 0 else ""
        raise UsageError(f"batches {same} and {number} are the same{own}; give each batch once.")
