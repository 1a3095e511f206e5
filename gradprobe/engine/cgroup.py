"""Memory that the limits of a container or a job leave to this process (Linux control groups)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""For each version: limit, usage, and what of the usage ``memory.stat`` calls files that can be dropped."""


def left_in_groups(root: Path = Path("/")) -> int | None:
    """Bytes that the control groups of this process leave to it; None if there is no limit.

    A group's limit holds for the groups below it too, so the tightest of them counts.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [left for folder, version in _groups(root) if (left := _left(folder, version)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders that may describe this process's own group and those above it, with their version.

    Inside a container the path may be that of the machine, which is not there; the root then is the group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, base = (1, "sys/fs/cgroup/memory") if controllers else (2, "sys/fs/cgroup")
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield root / base / str(group).lstrip("/"), version


def _left(folder: Path, version: int) -> int | None:
    limit, usage, dropped = _FILES[version]
    with suppress(OSError, ValueError):  # "max" is no number; the root of the machine has no files
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(most - max(used - int(stat.get(dropped, 0)), 0), 0)
    return None
