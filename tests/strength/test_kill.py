"""A run that is killed, stopped or out of disk loses nothing it had finished, and goes on to the same numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.store.run import RunStore
from tests.strength.forked import FORKED
from tests.strength.killed import run

CODE = "import sys; from tests.strength.killed import run; run(sys.argv[1])"
ROOT = Path(__file__).parents[2]
MEASURED = ("seconds", "peak_bytes")
BLOCKS = 60
"""In each unit, of which there are 4 for each seed."""


class Started:
    """A process that probes into ``out``; the problem is loaded."""

    def __init__(self, out: Path) -> None:
        self.answers, its = FORKED.Pipe(duplex=False)
        self.process = FORKED.Process(target=run, args=(str(out), its))
        self.process.start()
        its.close()
        assert self.answers.recv() == "ready"

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> int:
        """Wait for it; its exit code, or the signal that ended it, below 0."""
        self.process.join()
        self.answers.close()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def computed(self) -> int:
        """Wait for it to end well; how many blocks it computed."""
        number = self.answers.recv()
        assert self.end() == 0
        return number


def kept(out: Path) -> int:
    """Blocks that are there: of finished units, or saved on the way."""
    store = RunStore(out)
    states = [*store.kept.partial.all(), *store.kept.sums.all()]
    found = {state.unit.key: state.blocks for state in states}
    found |= {unit.key: BLOCKS for unit in store.units()}
    return sum(found.values())


def assert_same(out: Path, unbroken: xr.Dataset) -> None:
    ds = gp.open_run(out)
    xr.testing.assert_identical(
        ds.drop_vars(MEASURED).drop_attrs(deep=False), unbroken.drop_vars(MEASURED).drop_attrs(deep=False)
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, float]:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    process, begin = Started(out), time.monotonic()
    assert process.end() == 0
    return gp.open_run(out), time.monotonic() - begin


KILLS = int(os.environ.get("GRADPROBE_KILLS", "4"))
"""More on request: GRADPROBE_KILLS=50."""


def test_sigkill_at_any_moment(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    whole, seconds = unbroken
    moments = random.Random(0)
    for number in range(KILLS):
        out = tmp_path / f"run{number}"
        process = Started(out)
        time.sleep(moments.uniform(0, seconds))
        process.send(signal.SIGKILL)
        assert process.end() in (-signal.SIGKILL, 0)
        finished = {f: f.read_bytes() for f in out.glob("units/*.npz")}
        if (out / "run.json").exists():
            gp.open_run(out)
        there = kept(out)
        assert Started(out).computed() == 3 * 4 * BLOCKS - there
        assert all(f.read_bytes() == content for f, content in finished.items())
        assert_same(out, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_block_and_exits_130(
    number: int, unbroken: tuple[xr.Dataset, float], tmp_path: Path
) -> None:
    whole, _ = unbroken
    process = Started(tmp_path / "run")
    while not list(tmp_path.glob("run/units/*.npz")):
        time.sleep(0.01)
    process.send(number)
    assert process.end() == 130
    assert (gp.open_run(tmp_path / "run").status == "missing").any()
    there = kept(tmp_path / "run")
    assert Started(tmp_path / "run").computed() == 3 * 4 * BLOCKS - there
    assert list((tmp_path / "run" / "partial").iterdir()) == []
    assert_same(tmp_path / "run", whole)


def test_sigint_at_any_moment(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    """Before the probe has taken over the signal it ends Python as always; either way nothing is lost."""
    whole, seconds = unbroken
    moments = random.Random(1)
    for number in range(max(KILLS // 5, 1)):
        out = tmp_path / f"run{number}"
        process = Started(out)
        time.sleep(moments.uniform(0, seconds))
        process.send(signal.SIGINT)
        assert process.end() in (130, 0, 1, -signal.SIGINT)
        there = kept(out) if (out / "run.json").exists() else 0
        assert Started(out).computed() == 3 * 4 * BLOCKS - there
        assert_same(out, whole)


def test_sigkill_within_the_first_unit(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    process = Started(tmp_path / "run")
    while not list(tmp_path.glob("run/partial/*.npz")):
        time.sleep(0.001)
    process.send(signal.SIGKILL)
    assert process.end() == -signal.SIGKILL
    there = kept(tmp_path / "run")
    assert there > 0
    assert Started(tmp_path / "run").computed() == 3 * 4 * BLOCKS - there
    assert_same(tmp_path / "run", unbroken[0])


def test_two_writers_do_no_harm(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    both = [Started(tmp_path / "run") for _ in range(2)]
    assert [p.end() for p in both] == [0, 0]
    assert_same(tmp_path / "run", unbroken[0])


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    unbroken: tuple[xr.Dataset, float], tmp_path: Path
) -> None:
    """The shell's limit on a file's size stands for the disk: the first unit that is larger cannot be written."""
    limited = f"trap '' XFSZ; ulimit -f 8; exec {sys.executable} -c \"$0\" {tmp_path / 'run'}"
    words = ["bash", "-c", limited, CODE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode != 0
    assert "cannot write" in done.stderr
    assert (tmp_path / "run" / "run.json").stat().st_size < 8 * 1024
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    assert Started(tmp_path / "run").end() == 0
    assert_same(tmp_path / "run", unbroken[0])


def test_a_file_in_the_way(tmp_path: Path) -> None:
    from tests.problems_tiny import classifier

    (tmp_path / "file").touch()
    with pytest.raises(gp.UsageError, match="cannot write|not a gradprobe run"):
        gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=2, out=tmp_path / "file" / "run")


def test_in_python_a_stop_returns_what_there_is() -> None:
    from tests.problems_tiny import classifier

    def press(done: int, total: int, label: str) -> None:
        if done * 2 >= total:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    ds = gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=4, progress=press)
    assert ds.attrs["stopped"] == 1
    assert {"ok", "missing"} == set(ds.status.values.ravel())
    assert signal.getsignal(signal.SIGINT) is before
