"""Dask: connecting to a scheduler, and spreading data over its workers. Imported by those who use it alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from gradprobe.core.errors import UsageError

PATIENCE = 10
"""Seconds to wait for a scheduler, and for its first worker."""


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """An executor on the workers of a Dask scheduler.

    Args:
        address: Such as ``"tcp://10.0.0.1:8786"``, or a scheduler file.

    Yields:
        The executor.

    Raises:
        UsageError: Dask is not installed, nothing answers, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs Dask: pip install 'gradprobe[distributed]'.") from error
    if not address.strip():
        raise UsageError("--scheduler needs an address such as tcp://127.0.0.1:8786.")
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a timeout is an OSError
        raise UsageError(
            f"no Dask scheduler answers at {address!r} ({str(error) or type(error).__name__}); start one with: "
            "dask scheduler, or give the address that it prints."
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except OSError as error:
            raise UsageError(
                f"the Dask scheduler at {address!r} has no workers; start some with: dask worker {address}"
            ) from error
        yield client.get_executor()
    finally:
        client.close()


def spread(executor: Executor, data: bytes) -> Any:
    """Bytes as an argument of many calls: Dask sends them to each worker once, other executors with each call."""
    if not type(executor).__module__.startswith("distributed."):
        return data
    return executor._client.scatter(data, broadcast=True)  # type: ignore[attr-defined]
