"""A full look times engines as for a long probe; here as for a short one."""

from __future__ import annotations

import pytest

from gradprobe.checkup import engines


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "COPIES", 10)
