"""What every unit needs, as bytes that travel to a worker once: the problem and its references."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.serialization import default_restore_location

from gradprobe.core.errors import UsageError
from gradprobe.engine.noise import NOISE, family_name
from gradprobe.layers import RULES, rule_name
from gradprobe.probes.plan import Task
from gradprobe.probes.references import Known
from gradprobe.problems.problem import Problem

HERE = "or use workers=1"


@dataclass(frozen=True)
class Parcel:
    """A problem and its references, packed.

    Attributes:
        data: The bytes.
        digest: SHA-256 of them, by which a worker knows what it has unpacked already.
    """

    data: bytes
    digest: str


def pack(problem: Problem, known: Known, tasks: Sequence[Task]) -> Parcel:
    """Pack a problem with its references.

    Args:
        problem: The problem.
        known: References without noise, which all units share.
        tasks: What will be computed; one of each kind goes along, so that unpacking tells whether a worker
            knows the estimators.

    Raises:
        UsageError: A part of it cannot be pickled; the message says which.
    """
    kinds = list({(task.key.source, task.key.layer): task for task in tasks}.values())
    rules = sorted({rule_name(module) for module in problem.twin.modules()})
    try:
        data = _bytes((problem, {name: dict(g) for name, g in known.items()}, kinds, rules))
    except Exception as error:
        raise _refused(problem, kinds, error) from error
    return Parcel(data, hashlib.sha256(data).hexdigest())


def unpack(data: bytes, worker: int = 0) -> tuple[Problem, Known]:
    """The problem and its references.

    Args:
        data: Bytes of a :class:`Parcel`.
        worker: Index of the worker: on a machine with several GPUs each worker uses the next one.

    Raises:
        UsageError: A class or function is not known here, or a noise family or a layer rule, or there is no GPU
            for a problem on one.
    """
    gpus = torch.cuda.device_count()

    def place(storage: Any, location: str) -> Any:
        gpu = gpu_of(location, worker, gpus)
        return None if gpu is None else default_restore_location(storage, f"cuda:{gpu}")

    try:
        # not a file that a user was given: the bytes come from the process that started this one
        problem, known, kinds, rules = torch.load(io.BytesIO(data), map_location=place, weights_only=False)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"a worker cannot load the problem ({_short(error)}); define model, loss and estimators in a module "
            f"file that the workers can import, not in a notebook or a session, {HERE}."
        ) from error
    needed = [("noise", family_name(t.draw.noise), NOISE) for t in kinds if t.draw is not None]
    for what, name, registry in [*needed, *(("layer rule", rule, RULES) for rule in rules)]:
        if name not in registry:
            raise UsageError(
                f"a worker does not know the {what} {name!r}; install what registers it, {HERE}."
            )
    return problem, known


def gpu_of(location: str, worker: int, gpus: int) -> int | None:
    """The GPU of a worker that takes the place of one on the machine where the problem was packed.

    Args:
        location: Where a tensor was, such as ``"cuda:1"``.
        worker: Index of the worker.
        gpus: How many GPUs the worker's machine has.

    Returns:
        Its index; None for what was on no GPU.

    Raises:
        UsageError: There is none.
    """
    kind, _, own = location.partition(":")
    if kind != "cuda":
        return None
    if not gpus:
        raise UsageError(
            f"the problem is on {location}, but a worker sees no GPU; use workers that have one, or device='cpu'."
        )
    return (int(own or 0) + worker) % gpus


def _bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _refused(problem: Problem, kinds: Sequence[Task], error: Exception) -> UsageError:
    """The refusal that names the part which cannot be pickled."""
    parts: list[tuple[str, Any]] = [
        (f"model {type(problem.module).__name__}", problem.module),
        (f"loss {getattr(problem.loss, '__qualname__', type(problem.loss).__name__)}", problem.loss),
        ("batch", (problem.inputs, problem.target)),
    ]
    parts += [(f"estimator {task.key.source}", task) for task in kinds]
    name = "problem"
    for what, part in parts:
        try:
            _bytes(part)
        except Exception as found:
            name, error = what, found
            break
    return UsageError(
        f"the {name} cannot be sent to workers ({_short(error)}); define it at the top of a module file, not "
        f"inside a function, as a lambda or in a notebook, {HERE}."
    )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
