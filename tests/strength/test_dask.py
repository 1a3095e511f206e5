"""Units on the workers of a Dask cluster: two processes that stand for two machines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

import gradprobe as gp
from gradprobe.probes.scheduler import connected
from tests.commands import command, process
from tests.problems_tiny import classifier
from tests.strength.model_file import problem

distributed = pytest.importorskip("distributed")

SMALL = {"copies": 12, "block": 4, "seeds": 2}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    client = distributed.Client(cluster, set_as_default=False)
    yield client
    client.close()
    cluster.close()


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    xr.testing.assert_identical(
        *(ds.drop_vars(["seconds", "peak_bytes"]).drop_attrs(deep=False) for ds in (a, b))
    )


def test_the_numbers_are_those_of_one_process(client: Any, tmp_path: Path) -> None:
    given = {**SMALL, "reference": "smoothed", "reference_copies": 8}
    one = gp.probe(problem(), ["lr", "alr", "es", "bp"], **given)
    out = tmp_path / "run"
    two = gp.probe(problem(), ["lr", "alr", "es", "bp"], executor=client.get_executor(), out=out, **given)
    same(one, two)
    same(one, gp.open_run(out))
    assert len(set(client.run(os.getpid).values()) - {os.getpid()}) == 2


def test_a_killed_worker_is_not_noticed(client: Any, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(done: int, total: int, label: str) -> None:
        if not killed and done:
            killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    given = {"copies": 40, "block": 2, "seeds": 3}
    ds = gp.probe(
        problem(wait=0.01),
        ["lr"],
        executor=client.get_executor(),
        out=tmp_path / "run",
        progress=kill,
        **given,
    )
    assert killed
    same(gp.probe(problem(), ["lr"], **given), ds)
    client.wait_for_workers(2, timeout=30)


def test_a_stop_returns_what_there_is(client: Any) -> None:
    pressed: list[int] = []

    def press(done: int, total: int, label: str) -> None:
        if done and not pressed:
            pressed.append(done)
            signal.raise_signal(signal.SIGINT)

    given = {"copies": 40, "block": 2, "seeds": 4}
    ds = gp.probe(problem(wait=0.01), ["lr"], executor=client.get_executor(), progress=press, **given)
    assert ds.attrs["stopped"] == 1
    assert {"ok", "missing"} == set(ds.status.values.ravel())


def test_a_model_file_that_the_workers_lack_is_one_sentence(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_alone.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import mine_alone

    given = gp.Problem(mine_alone.Net(4, 3), (torch.zeros(6, 4), torch.arange(6) % 3))
    with pytest.raises(gp.UsageError, match="No module named 'mine_alone'.*module file") as caught:
        gp.probe(given, ["lr"], executor=client.get_executor(), out=tmp_path / "run", **SMALL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_client_is_not_yet_an_executor(client: Any) -> None:
    with pytest.raises(gp.UsageError, match=r"client\.get_executor\(\)"):
        gp.probe(classifier(), ["lr"], executor=client, **SMALL)


PROBE = ["probe", "--checkpoint", "trained", "--estimators", "lr", "--copies", "20", "--seeds", "2"]
PROBE += ["--layers", "fc", "--batch-size", "8"]


def test_the_command_uses_a_scheduler(client: Any, tmp_path: Path) -> None:
    address = client.scheduler.address
    done = process(*PROBE, "--scheduler", address, "--out", str(tmp_path / "run"), timeout=60)
    assert done.returncode == 0, done.stderr
    assert (gp.open_run(tmp_path / "run").status == "ok").all()


def test_the_example_of_the_guide(client: Any, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "running.md").read_text(encoding="utf-8")
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Client(" in b]
    (tmp_path / "script.py").write_text(code.replace("tcp://10.0.0.1:8786", client.scheduler.address))
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert (gp.open_run(tmp_path / "runs" / "cluster").status == "ok").all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
        (["--scheduler", "nonsense"], "no Dask scheduler answers at 'nonsense'"),
        (["--scheduler", "http://"], "no Dask scheduler answers"),
        (["--scheduler", ""], "no Dask scheduler answers at ''"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "not both"),
    ],
)
def test_no_scheduler_is_one_sentence_and_does_not_take_minutes(
    words: list[str], says: str, tmp_path: Path
) -> None:
    begin = time.monotonic()
    done = command(*PROBE, *words, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "run").exists()


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(gp.UsageError, match=r"pip install 'gradprobe\[distributed\]'"):
        with connected("tcp://127.0.0.1:1"):
            pass
