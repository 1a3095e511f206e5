from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from rich.console import Console

from gradprobe.core import progress
from gradprobe.core.progress import Speed, shown


def speed_after(reports: Iterable[tuple[float, int]]) -> Speed:
    """Reports are (seconds, copies done)."""
    clock = [0.0]
    speed = Speed(lambda: clock[0])
    for seconds, done in reports:
        clock[0] = seconds
        speed.note(done)
    return speed


@pytest.mark.parametrize("step", [0.01, 0.7, 30.0])
@pytest.mark.parametrize("kept", [0, 10**9])
def test_copies_that_were_there_do_not_count(kept: int, step: float) -> None:
    speed = speed_after((k * step, kept + round(100 * k * step)) for k in range(1, 1000))
    assert speed.rate() == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("at", [1, 5, 20, 39])
def test_units_that_go_on_from_a_state_later_do_not_move_the_rate(at: int) -> None:
    speed = speed_after((k, 100 * k + 10**9 * (k >= at) + 10**9 * (k >= at + 6)) for k in range(40))
    assert speed.rate() == pytest.approx(100)


def test_there_is_no_rate_before_there_are_two_stretches() -> None:
    assert speed_after([]).text(100) == ""
    assert speed_after([(0.2, 0), (0.9, 10**9), (1.3, 10**9 + 10)]).text(100) == ""
    assert speed_after([(0.2, 0), (1.2, 10**9), (2.2, 10**9 + 10)]).text(100) == "10/s, 0:00:10 left"


def test_bursts_of_blocks_and_pauses_between_them() -> None:
    """Several blocks are computed in one call, and reported one after the other."""
    speed = speed_after((10.0 * (k // 8) + 0.001 * (k % 8), 10 * k) for k in range(1, 200))
    assert speed.rate() == pytest.approx(8, rel=0.01)


def test_workers_that_report_by_turns() -> None:
    speed = speed_after((0.2 * k, 10 * (k // 150 + (k + 140) // 150)) for k in range(3000))
    assert speed.rate() == pytest.approx(20 / 30, rel=0.25)


def test_a_worker_that_dies_takes_copies_with_it() -> None:
    speed = speed_after((k, 100 * k - 1000 * (k >= 20)) for k in range(40))
    assert speed.rate() == pytest.approx(100)


def test_hours_left() -> None:
    speed = speed_after((10 * k, 20 * k) for k in range(10))
    assert speed.text(2 * (2 * 3600 + 5 * 60 + 7)) == "2/s, 2:05:07 left"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STRETCH", 0.0)
    file = io.StringIO()
    with shown(Console(file=file, force_terminal=terminal, width=120)) as report:
        for done in range(0, 1200, 10):
            report(done, 1190, "lr")
    text = file.getvalue()
    assert "0:00:00 left" in text
    assert ("1190/1190" if terminal else "1,190 of 1,190 copies, ") in text
