"""How much memory a probe may use, how many copies fit into it, and what to do when it runs out."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.engine.cgroup import left_in_groups
from gradprobe.engine.draw import Draw
from gradprobe.engine.sites import site_shapes

SHARE = 0.5
"""Of the free memory, what a probe takes by default: the rest is left for what was not foreseen."""

SPARE = 0.25
"""Of the memory of a probe, what may be kept of one layer's work for a later unit: clean inputs, traced forwards."""

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{k}i": 2 ** (10 * i) for i, k in enumerate("KMGT", 1)}

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def parse_memory(given: str | int | None) -> int | None:
    """Bytes of "2GiB", "500 MB" or a whole number; None stays None.

    Raises:
        UsageError: It is neither.
    """
    if given is None:
        return None
    text = str(given).strip() if not isinstance(given, bool) else "?"
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", text, re.IGNORECASE)
    unit = (found[2] or "") if found else ""
    size = float(found[1]) * UNITS[unit[:1].upper() + unit[1:].lower()] if found else 0.0
    if size < 1:
        raise UsageError(f"memory is written as '2GiB', '500MB' or a number of bytes, not {given!r}.")
    return int(size)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]  # ships no types

    free, left = int(psutil.virtual_memory().available), left_in_groups()
    return free if left is None else min(free, left)


def bytes_per_copy(problem: Runnable, draw: Draw, layers: Sequence[Layer]) -> int:
    """About what one copy needs: its noise three times over, and everything that its forward passes make.

    A forward frees most of what it makes before it ends, so this is mostly too much; workspaces of single operations
    are not seen.
    """
    item = next(iter(problem.parameters.values())).dtype.itemsize
    noise = sum(math.prod(s) for layer in layers for s in site_shapes(problem, draw, layer))
    return 3 * noise * item + draw.passes * bytes_of_forward(problem)


def bytes_of_forward(problem: Runnable) -> int:
    """Bytes of all that one forward makes, whether it frees it again or not."""

    def made() -> int:
        with torch.no_grad(), _Made() as found:
            problem.evaluate()
        return found.bytes

    return int(problem.memo("bytes of a forward", made))


def room_for(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    directions: int,
    memory: int | None,
    sharers: int = 1,
    extra: int = 0,
) -> int | None:
    """Copies that fit into memory at once.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together.
        directions: How many directions of the layers' parameters are held meanwhile (sums, references).
        memory: Bytes; by default half of what is free.
        sharers: Processes that share it.
        extra: Bytes that are needed besides, however many copies there are.

    Raises:
        UsageError: Not even one copy fits into the memory that was given.
    """
    device = problem.device
    weights = sum(layer.numel for layer in layers)
    each, fixed = bytes_per_copy(problem, draw, layers), 8 * weights * (directions + 2) + extra
    room = memory // sharers if memory is not None else _default(device, sharers)
    least = 2 if draw.antithetic else 1
    if memory is not None and room < fixed + least * each:
        need = f"{(fixed + least * each) / 2**20:,.0f} MiB"
        given = "memory=" if sharers == 1 else f"memory= for each of {sharers} workers"
        raise UsageError(
            f"layer {layers[0].name!r} needs about {need} for one call and its sums, more than the "
            f"{room / 2**20:,.0f} MiB of {given}; give more, or a smaller batch."
        )
    return max((room - fixed) // each, least)


def spare(device: torch.device, memory: int | None, sharers: int = 1) -> int:
    """Bytes that what is remembered of other units may take; the arguments are those of :func:`room_for`.

    It is no part of what :func:`bytes_per_copy` adds up: that is several times what a copy holds at once.
    """
    return int(SPARE * (memory // sharers if memory is not None else _default(device, sharers)))


def _default(device: torch.device, sharers: int) -> int:
    """Half of what is free, divided among those who run on the same device: workers use one GPU after the other."""
    here = -(-sharers // torch.cuda.device_count()) if device.type == "cuda" else sharers
    return int(SHARE * free_memory(device)) // here


def bytes_of(value: Any) -> int:
    """Bytes of the tensors in nested containers, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(value)}
    return sum(storages.values())


class _Made(TorchFunctionMode):
    """Counts the bytes of all new tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in map(_unwrapped, tensors((args, kwargs or {})))}
        for t in map(_unwrapped, tensors(result)):
            if t.untyped_storage().data_ptr() not in old:
                self.bytes += t.numel() * t.dtype.itemsize
        return result


def _unwrapped(t: torch.Tensor) -> torch.Tensor:
    """The tensor in memory: inside a model's own ``torch.func.vmap`` or ``grad`` it is wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word.lower() in text for word in _WORDS)


def free_unused() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Peak:
    """Most memory in use while a ``with`` lasts.

    Attributes:
        bytes: On a GPU what torch has allocated, elsewhere the resident memory of the process (with Python and
            torch themselves); NaN where the system does not say.
    """

    def __init__(self) -> None:
        self.bytes = math.nan


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak; where the system keeps one mark only, that of the whole process so far."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = float(torch.cuda.max_memory_allocated(device))
        return
    _forget_peak()
    yield peak
    peak.bytes = _resident_peak()


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _resident_peak() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return math.nan
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return float(found[1]) * 1024 if found else math.nan
