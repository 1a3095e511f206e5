"""Where numbers came from: versions and machine, without importing what is described."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime

_PACKAGES = ("gradprobe", "torch", "numpy", "scipy", "xarray", "safetensors", "scikit-learn")


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, the platform, and the time (UTC)."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    return found
