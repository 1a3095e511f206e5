"""Writing so that a crash, a full disk or a second process does no harm."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradprobe.core.errors import UsageError

TEMPORARY = ".tmp-"
ABANDONED = 3600.0
"""Seconds after which a temporary file is no longer another process's."""


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is either absent (or old) or whole: temporary file, fsync, rename.

    Raises:
        UsageError: It cannot be written (disk full, no permission).
    """
    temporary = file.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
        _sync_folder(file.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(file, error) from error
        raise


def cannot_write(file: Path, error: OSError) -> UsageError:
    """The one sentence for a file that cannot be written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return UsageError(f"cannot write {file}: {error.strerror}; choose another place.")
    return UsageError(
        f"cannot write {file}: {error.strerror}; what was finished is kept, and the same call goes on once there is "
        "room (or choose another out=)."
    )


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be written, before anything is computed for it.

    Raises:
        UsageError: It is a file, or its nearest existing parent may not be written.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"{folder} cannot be written; choose another place.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from changing ``run.json`` meanwhile; the lock goes with the process."""
    with (folder / ".lock").open("w") as stream:
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: there the last writer wins
            yield
            return
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def forget_abandoned(folder: Path) -> None:
    """Delete temporary files, in a folder and below, that killed processes have left."""
    latest = time.time() - ABANDONED
    for file in folder.rglob(f"{TEMPORARY}*"):
        with suppress(OSError):  # another process is faster, or does not let us
            if file.stat().st_mtime < latest:
                file.unlink()


def names_in(folder: Path) -> list[str]:
    """Names of the ``.npz`` files in a folder, sorted; none if it is not there."""
    try:
        return sorted(n for n in os.listdir(folder) if n.endswith(".npz") and not n.startswith("."))
    except OSError:
        return []


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last; systems that cannot open folders do without."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
