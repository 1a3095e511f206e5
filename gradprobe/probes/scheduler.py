"""Dask: connecting to a scheduler, and spreading data over its workers. Imported by those who use it alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradprobe.core.errors import UsageError

PATIENCE = 10
"""Seconds to wait for a scheduler, and for its first worker."""


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """An executor on the workers of a Dask scheduler.

    Args:
        address: Such as ``"tcp://10.0.0.1:8786"``, or the scheduler file that Dask wrote.

    Yields:
        The executor.

    Raises:
        UsageError: Dask is not installed, nothing answers, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs Dask: pip install 'gradprobe[distributed]'.") from error
    address = _found(address)
    client = _in_time(address, lambda: Client(address, timeout=PATIENCE, set_as_default=False))
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


def _found(given: str) -> str:
    """The address, once something listens there: Dask's own client tries for long, and complains at length.

    Raises:
        UsageError: It is no address, or nothing listens.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        given = str(json.loads(Path(given).read_text(encoding="utf-8"))["address"])
    try:
        parts = urlsplit(given if "://" in given else f"tcp://{given}")
        if parts.scheme not in ("tcp", "tls", "ws", "wss") or not parts.hostname or not parts.port:
            raise ValueError("an address is written as tcp://127.0.0.1:8786")
        socket.create_connection((parts.hostname, parts.port), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _silent(given, error) from error
    return given


def _in_time(address: str, connect: Callable[[], Any]) -> Any:
    """A client, unless what listens there never answers: Dask itself would wait for ever then.

    Raises:
        UsageError: No scheduler answers.
    """
    found: list[Any] = []
    errors: list[Exception] = [TimeoutError("what listens there is no Dask scheduler")]

    def attempt() -> None:
        try:
            found.append(connect())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    if not found:
        raise _silent(address, errors[-1]) from errors[-1]
    return found[0]


def _silent(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"no Dask scheduler answers at {address!r} ({str(error) or type(error).__name__}); start one with: dask "
        "scheduler, and give the address that it prints."
    )


def spread(executor: Executor, data: bytes) -> Any:
    """Bytes as an argument of many calls: Dask sends them to each worker once, other executors with each call."""
    if not type(executor).__module__.startswith("distributed."):
        return data
    return executor._client.scatter(data, broadcast=True)  # type: ignore[attr-defined]  # not public
