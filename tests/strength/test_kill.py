"""A run that is killed, stopped or out of disk loses nothing it had finished, and goes on to the same numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.store.run import RunStore

CODE = """
import sys, torch
torch.set_num_threads(1)
import gradprobe as gp
from gradprobe.probes import unit
true, count = unit.read_blocks, 0
def counted(*given):
    global count
    for read in true(*given):
        count += 1
        yield read
unit.read_blocks = counted
problem = gp.load_problem(checkpoint="early", batch_size=8)
print("ready", flush=True)
ds = gp.probe(problem, "lr,alr,es", copies=60, block=1, seeds=3, layers=["conv4", "fc"], out=sys.argv[1])
print(count)
sys.exit(130 if "stopped" in ds.attrs else 0)
"""
MEASURED = ("seconds", "peak_bytes")
BLOCKS = 60
"""In each unit, of which there are 4 for each seed."""


def start(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    code = process.wait()
    process.stdout.close()
    return code


def computed(process: subprocess.Popen[str]) -> int:
    """Wait for a process that ends well; how many blocks it computed."""
    assert process.stdout is not None
    number = int(process.stdout.read())
    assert end(process) == 0
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
    process, begin = start(out), time.monotonic()
    assert end(process) == 0
    return gp.open_run(out), time.monotonic() - begin


KILLS = int(os.environ.get("GRADPROBE_KILLS", "4"))
"""More on request: GRADPROBE_KILLS=50."""


def test_sigkill_at_any_moment(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    whole, seconds = unbroken
    moments = random.Random(0)
    for number in range(KILLS):
        out = tmp_path / f"run{number}"
        process = start(out)
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        end(process)
        finished = {f: f.read_bytes() for f in out.glob("units/*.npz")}
        if (out / "run.json").exists():
            gp.open_run(out)
        there = kept(out)
        assert computed(start(out)) == 3 * 4 * BLOCKS - there
        assert all(f.read_bytes() == content for f, content in finished.items())
        assert_same(out, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_block_and_exits_130(
    number: int, unbroken: tuple[xr.Dataset, float], tmp_path: Path
) -> None:
    whole, _ = unbroken
    process = start(tmp_path / "run")
    while not list(tmp_path.glob("run/units/*.npz")):
        time.sleep(0.01)
    process.send_signal(number)
    assert end(process) == 130
    assert (gp.open_run(tmp_path / "run").status == "missing").any()
    there = kept(tmp_path / "run")
    assert computed(start(tmp_path / "run")) == 3 * 4 * BLOCKS - there
    assert list((tmp_path / "run" / "partial").iterdir()) == []
    assert_same(tmp_path / "run", whole)


def test_sigint_at_any_moment(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    """Before the probe has taken over the signal it ends Python as always; either way nothing is lost."""
    whole, seconds = unbroken
    moments = random.Random(1)
    for number in range(max(KILLS // 5, 1)):
        out = tmp_path / f"run{number}"
        process = start(out)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGINT)
        assert end(process) in (130, 0, 1, -signal.SIGINT)
        there = kept(out) if (out / "run.json").exists() else 0
        assert computed(start(out)) == 3 * 4 * BLOCKS - there
        assert_same(out, whole)


def test_sigkill_within_the_first_unit(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    while not list(tmp_path.glob("run/partial/*.npz")):
        time.sleep(0.001)
    process.kill()
    end(process)
    there = kept(tmp_path / "run")
    assert there > 0
    assert computed(start(tmp_path / "run")) == 3 * 4 * BLOCKS - there
    assert_same(tmp_path / "run", unbroken[0])


def test_two_writers_do_no_harm(unbroken: tuple[xr.Dataset, float], tmp_path: Path) -> None:
    both = [start(tmp_path / "run") for _ in range(2)]
    assert [end(p) for p in both] == [0, 0]
    assert_same(tmp_path / "run", unbroken[0])


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    unbroken: tuple[xr.Dataset, float], tmp_path: Path
) -> None:
    """The shell's limit on a file's size stands for the disk: the first unit that is larger cannot be written."""
    limited = f"trap '' XFSZ; ulimit -f 8; exec {sys.executable} -c \"$0\" {tmp_path / 'run'}"
    done = subprocess.run(["bash", "-c", limited, CODE], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "cannot write" in done.stderr
    assert (tmp_path / "run" / "run.json").stat().st_size < 8 * 1024
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    assert end(start(tmp_path / "run")) == 0
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
