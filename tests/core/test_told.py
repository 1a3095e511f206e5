from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import gradprobe as gp
from gradprobe.core import told
from gradprobe.core.told import Line, clock
from tests.problems_tiny import classifier

SMALL: dict[str, Any] = {"copies": 40, "block": 4, "seeds": 2}


class Shell:
    """Takes what a kernel would publish."""

    def __init__(self) -> None:
        self.said: list[tuple[dict[str, str], str, bool]] = []
        self.display_pub = self

    def publish(self, data: dict[str, str], *, transient: dict[str, str], update: bool) -> None:
        self.said.append((data, transient["display_id"], update))

    @property
    def texts(self) -> list[str]:
        return [data["text/plain"] for data, _, _ in self.said]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    found = Shell()
    monkeypatch.setattr(told, "notebook_shell", lambda: found)
    return found


def test_one_line_is_written_over() -> None:
    shell, now = Shell(), [0.0]
    line = Line(shell, "copies", lambda: now[0])
    with line:
        for k in range(1, 1001):
            now[0] = k / 100
            line(k, 1000, f"<b>layer{k}</b>")
        line.ended(False, False, False)
    assert [update for _, _, update in shell.said] == [False] + [True] * (len(shell.said) - 1)
    assert len({name for _, name, _ in shell.said}) == 1
    assert len(shell.said) <= 10 / told.EVERY + 2
    assert shell.texts[-1] == "1,000 copies in 10 s."
    assert not any("<b>" in data["text/html"] for data, _, _ in shell.said)
    assert shell.texts[-2].startswith("9")


def test_a_probe_in_a_notebook_ends_with_one_short_line(shell: Shell) -> None:
    gp.probe(classifier(), ["lr", "alr"], **SMALL)
    assert shell.texts[-1].startswith("160 copies in ")
    assert shell.said[0][2] is False
    assert all(update for _, _, update in shell.said[1:])


def test_stopped_and_resumed_runs_say_so(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(self: Line, *now: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Line, "show", stopping)
        gp.probe(classifier(), ["lr"], **SMALL)
        assert shell.texts[-1].startswith("Stopped: 4 of 160 copies after ")
        assert shell.texts[-1].endswith("; what there is was returned.")
        gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)
        assert shell.texts[-1].endswith("; the same call goes on from there.")
    gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)
    assert shell.texts[-1].endswith(" (more was there before).")
    gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)
    assert shell.texts[-1] == "Nothing was missing: all of it was there before."


def test_an_error_ends_the_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Line, *now: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Line, "show", broken)
    with pytest.raises(ZeroDivisionError):
        gp.probe(classifier(), ["lr"], **SMALL)
    assert shell.texts[-1].startswith("Ended by ZeroDivisionError, 4 of 160 copies after ")


def test_a_refusal_leaves_no_line(shell: Shell) -> None:
    with pytest.raises(gp.UsageError):
        gp.probe(classifier(), ["nothing"], **SMALL)
    assert not shell.said


def test_nothing_where_it_is_not_wanted(shell: Shell, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int, str]] = []
    gp.probe(classifier(), ["lr"], progress=False, **SMALL)
    gp.probe(classifier(), ["lr"], progress=lambda *now: seen.append(now), **SMALL)
    assert not shell.said
    assert seen[-1][:2] == (160, 160)
    assert capfd.readouterr() == ("", "")


def test_outside_a_notebook_only_if_asked(capfd: pytest.CaptureFixture[str]) -> None:
    gp.probe(classifier(), ["lr"], **SMALL)
    assert capfd.readouterr() == ("", "")
    gp.probe(classifier(), ["lr"], progress=True, **SMALL)
    out, err = capfd.readouterr()
    assert out == ""
    assert "160 copies in " in err


def test_what_is_no_wish_is_refused() -> None:
    with pytest.raises(gp.UsageError, match=r"progress must be True, False, None or a function .*, not 3\.$"):
        gp.probe(classifier(), ["lr"], progress=3, **SMALL)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("lr", ["tuned", 1e-3])
def test_a_descent_counts_its_steps(lr: Any) -> None:
    seen: list[tuple[int, int, str]] = []
    gp.descend(
        "beale",
        ["bp", "lr"],
        steps=10,
        seeds=2,
        lr=lr,
        progress=lambda *now: seen.append(now),
        **({"rates": [1e-4, 1e-3], "tuning_seeds": 1} if lr == "tuned" else {}),
    )
    total = 2 * 10 * (2 if lr == "tuned" else 1)
    assert [now[0] for now in seen] == list(range(1, total + 1))
    assert {now[1] for now in seen} == {total}
    assert seen[-1][2] == "lr"


def test_batches_and_sweeps_go_the_same_way(shell: Shell) -> None:
    gp.sigma_sweep(classifier(), ["lr"], (0.01, 0.1), reference="bp", **SMALL)
    assert shell.texts[-1].startswith("320 copies in ")
    shell.said.clear()
    problem = classifier()
    gp.probe(problem, ["lr"], batches=[(problem.inputs + 1, problem.target)], **SMALL)
    assert shell.texts[-1].startswith("320 copies in ")
    assert len({name for _, name, _ in shell.said}) == 1


def test_durations_are_easy_to_read() -> None:
    assert [clock(s) for s in (0.04, 9.94, 12.3, 59.7, 185, 7385)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "1:00 min",
        "3:05 min",
        "2:03:05 h",
    ]
