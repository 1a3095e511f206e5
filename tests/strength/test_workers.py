"""Units shared out among processes: the same numbers, no loss by a death or a stop, one sentence for each mistake."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from torch import nn

import gradprobe as gp
from gradprobe.engine.draw import Draw
from gradprobe.engine.memory import bytes_per_copy
from gradprobe.engine.noise import NOISE
from gradprobe.layers import RULES
from gradprobe.probes.allocator import tune_allocator
from gradprobe.probes.checks import layers_of
from gradprobe.probes.local import Local
from gradprobe.probes.messages import TorchState
from gradprobe.probes.parcel import gpu_of, pack, unpack
from gradprobe.store.assemble import attribute
from tests.problems_tiny import classifier
from tests.strength.forked import FORKED
from tests.strength.model_file import Half, halved, problem, state_under

SMALL = {"copies": 12, "block": 4, "seeds": 2}
ROOT = Path(__file__).parents[2]


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    xr.testing.assert_identical(
        *(ds.drop_vars(["seconds", "peak_bytes"]).drop_attrs(deep=False) for ds in (a, b))
    )


@pytest.fixture(autouse=True)
def forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork what would be spawned from a server that has imported torch, but for tests that are marked ``spawned``."""
    if not request.node.get_closest_marker("spawned"):
        true = multiprocessing.get_context
        monkeypatch.setattr(
            multiprocessing, "get_context", lambda kind: FORKED if kind == "spawn" else true(kind)
        )


def spawn_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.spawned
def test_the_numbers_are_those_of_one_process(tmp_path: Path) -> None:
    estimators = ["lr", "alr", "es(injection=joint)", "bp", Half()]
    given = {**SMALL, "reference": "smoothed", "reference_copies": 8}
    seen: list[tuple[int, int, str]] = []
    one = gp.probe(problem(), estimators, **given)
    two = gp.probe(
        problem(),
        estimators,
        workers=2,
        out=tmp_path / "run",
        progress=lambda *now: seen.append(now),
        **given,
    )
    same(one, two)
    same(one, gp.open_run(tmp_path / "run"))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert not multiprocessing.active_children()
    assert one["seed_product"].notnull().any()


@pytest.mark.parametrize("seen", [True, False])
def test_kept_sums_go_on_to_more_copies(seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that see the directory keep states there; else states travel with jobs and answers."""
    given = {"block": 4, "seeds": 2, "keep": "sums"}
    one = gp.probe(problem(), ["lr"], copies=24, **given)
    out = tmp_path / "run"
    workers: dict[str, Any] = {"workers": 2} if seen else {"executor": Inline()}
    if not seen:
        monkeypatch.setattr("gradprobe.probes.worker.RUN_FILE", "nothing.json")
    gp.probe(problem(), ["lr"], copies=12, out=out, **workers, **given)
    first = set((out / "sums").glob("*.npz"))
    assert len(first) == 4
    same(one, gp.probe(problem(), ["lr"], copies=24, out=out, **workers, **given))
    assert not first & set((out / "sums").glob("*.npz"))


def test_nothing_left_to_do_needs_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = gp.probe(problem(), ["lr"], out=tmp_path / "run", **SMALL)
    monkeypatch.setattr("gradprobe.probes.run.make_crew", None)
    same(one, gp.probe(problem(), ["lr"], out=tmp_path / "run", workers=2, **SMALL))


def test_other_values_and_the_type_travel_along() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        moved = classifier()
        moved = moved.at({"first.weight": moved.parameters["first.weight"] * 2})
        with pytest.raises(gp.UsageError, match="finite"):
            gp.probe(moved.at({"last.bias": torch.full((3,), torch.nan)}), ["lr"], workers=2, **SMALL)
        same(gp.probe(moved, ["lr"], **SMALL), gp.probe(moved, ["lr"], workers=2, **SMALL))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def hired(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers each crew had."""
    found: list[int] = []

    class Counted(Local):
        def __init__(self, size: int, *args: Any) -> None:
            found.append(size)
            super().__init__(size, *args)

    monkeypatch.setattr("gradprobe.probes.crew.Local", Counted)
    return found


def test_units_that_lack_a_reference_of_the_run_are_shared_out(tmp_path: Path, hired: list[int]) -> None:
    out, smoothed = tmp_path / "run", {"reference": "smoothed", "reference_copies": 8}
    gp.probe(problem(), ["lr"], out=out, **SMALL)
    stopped = gp.probe(
        problem(),
        ["lr"],
        out=out,
        progress=lambda *now: signal.raise_signal(signal.SIGINT),
        **smoothed,
        **SMALL,
    )
    assert stopped.attrs["stopped"] == 1
    ds = gp.probe(problem(), ["lr"], out=out, workers=2, reference_copies=8, **SMALL)
    assert hired == [2]
    same(gp.probe(problem(), ["lr"], **smoothed, **SMALL), ds)


def test_one_missing_unit_takes_one_worker_and_all_the_memory(tmp_path: Path, hired: list[int]) -> None:
    out = tmp_path / "run"
    one = gp.probe(problem(), ["lr"], out=out, **SMALL)
    next((out / "units").glob("*.npz")).unlink()
    least = max(
        bytes_per_copy(problem(), Draw(), [layer]) + 8 * layer.numel * 4 for layer in layers_of(problem())
    )
    ds = gp.probe(problem(), ["lr"], out=out, workers=4, memory=least, **SMALL)
    assert hired == [1]
    xr.testing.assert_allclose(one["dot"], ds["dot"])


@pytest.fixture
def torch_restored() -> Iterator[TorchState]:
    before = TorchState.here(1)
    yield before
    before.set()
    assert TorchState.here(1) == before


def newer(part: str, value: str) -> Callable[[], None]:
    def change() -> None:
        holder = torch.backends
        for name in filter(None, part.split(".")):
            holder = getattr(holder, name)
        holder.fp32_precision = value

    return change


def no_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = False


SWITCHES = {
    "older products": lambda: torch.set_float32_matmul_precision("medium"),
    "older convolutions": no_tf32,
    "newer products": newer("cuda.matmul", "tf32"),
    "newer convolutions": newer("cudnn.conv", "ieee"),
    "newer recurrent": newer("cudnn.rnn", "ieee"),
    "newer on the cpu": newer("mkldnn.conv", "bf16"),
    "all of a kind": newer("mkldnn", "bf16"),
    "all": newer("", "ieee"),
    "refusing": lambda: torch.use_deterministic_algorithms(True),
    "warning": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
}


@pytest.mark.parametrize("change", SWITCHES.values(), ids=SWITCHES)
def test_switches_of_torch_are_taken_over_and_given_back(
    change: Callable[[], Any], torch_restored: TorchState
) -> None:
    change()
    here = TorchState.here(1)
    assert here != torch_restored
    torch_restored.set()
    assert TorchState.here(1) == torch_restored
    pickle.loads(pickle.dumps(here)).set()
    assert TorchState.here(1) == here


def test_switches_of_torch_travel_to_workers(torch_restored: TorchState) -> None:
    newer("cuda.matmul", "tf32")()
    newer("cudnn.conv", "ieee")()
    torch.use_deterministic_algorithms(True)
    here = TorchState.here(1)
    assert here.matmul is None  # torch refuses to say
    same(gp.probe(problem(), ["lr"], **SMALL), gp.probe(problem(), ["lr"], workers=2, **SMALL))
    with spawn_pool(1) as executor:
        assert executor.submit(state_under, here).result() == here
    assert TorchState.here(1) == here


def test_an_executor_of_processes() -> None:
    one = gp.probe(problem(), ["lr", "es"], **SMALL)
    with spawn_pool(2) as executor:
        same(one, gp.probe(problem(), ["lr", "es"], executor=executor, **SMALL))
        with pytest.raises(gp.UsageError, match="in a worker|cannot be sent"):
            gp.probe(problem(loss=lambda o, t: halved(o, t)), ["lr"], executor=executor, **SMALL)
        same(one, gp.probe(problem(), ["lr", "es"], executor=executor, **SMALL))


class Inline(Executor):
    """Threads that take turns; one job is given up."""

    def __init__(self, given_up: int = 0) -> None:
        self.taken, self.given_up = 0, given_up

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.taken += 1
        if self.taken == self.given_up:
            future.set_exception(OSError("all workers died"))
            return future
        threading.Thread(target=lambda: future.set_result(fn(*args, **kwargs))).start()
        return future


class Kills:
    """Progress that kills a worker process, once or every time that it has done some copies."""

    def __init__(self, copies: int, out: Path | None = None, times: int = 1) -> None:
        self.copies, self.out, self.times = copies, out, times
        self.killed: list[int] = []

    def __call__(self, done: int, total: int, label: str) -> None:
        saved = self.out is None or list(self.out.glob("partial/*.npz"))
        if done >= self.copies and saved and len(self.killed) < self.times:
            children = [c for c in multiprocessing.active_children() if c.pid not in self.killed]
            if children:
                assert children[0].pid is not None
                self.killed.append(children[0].pid)
                os.kill(children[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("where", ["memory", "directory"])
def test_a_killed_worker_loses_only_what_it_had_not_saved(where: str, tmp_path: Path) -> None:
    out = tmp_path / "run" if where == "directory" else None
    given = {"copies": 200, "block": 2, "seeds": 2, "layers": "last"}
    kills = Kills(20, out)
    ds = gp.probe(problem(wait=0.005), ["lr"], workers=2, out=out, progress=kills, **given)
    assert len(kills.killed) == 1
    same(gp.probe(problem(), ["lr"], **given), ds)
    assert not list(tmp_path.glob("run/partial/*.npz"))


def test_a_unit_that_kills_its_workers_fails_and_the_others_go_on() -> None:
    ds = gp.probe(problem(), ["lr", Half(home=os.getpid(), end="die")], workers=2, **SMALL)
    assert (ds.status.isel(estimator=0) == "ok").all()
    assert (ds.status.isel(estimator=1) == "failed").all()
    assert "died" in ds.attrs["notes"]


def test_a_pool_that_dies_is_one_sentence_and_the_run_goes_on(tmp_path: Path) -> None:
    estimators = ["lr", Half(home=os.getpid(), end="die")]
    with spawn_pool(1) as executor, pytest.raises(gp.UsageError, match="has lost its workers"):
        gp.probe(problem(), estimators, executor=executor, out=tmp_path / "run", **SMALL)
    assert (gp.open_run(tmp_path / "run").status == "ok").any()
    assert (gp.probe(problem(), estimators, out=tmp_path / "run", **SMALL).status == "ok").all()


def test_an_error_in_a_worker_comes_back_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="Unknown: a class that needs two arguments") as caught:
        gp.probe(problem(), ["lr", Half(home=os.getpid(), end="raise")], workers=2, **SMALL)
    assert "model_file.py" in str(caught.value)


def test_a_stop_keeps_what_there_is(tmp_path: Path) -> None:
    pressed: list[Path | None] = []

    def press(done: int, total: int, label: str) -> None:
        if done * 2 >= total and out not in pressed:
            pressed.append(out)
            signal.raise_signal(signal.SIGINT)

    given = {"copies": 80, "block": 2, "seeds": 3}
    for out in (None, tmp_path / "run"):
        ds = gp.probe(problem(wait=0.02), ["lr"], workers=2, out=out, progress=press, **given)
        assert ds.attrs["stopped"] == 1
        assert set(ds.status.values.ravel()) <= {"ok", "missing", "partial"}
        assert "partial" in ds.status.values
        assert not multiprocessing.active_children()
    same(gp.probe(problem(), ["lr"], **given), gp.probe(problem(), ["lr"], out=tmp_path / "run", **given))


def children_of(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int], seconds: float = 10) -> bool:
    """Whether processes end (a zombie has ended)."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stats = [Path(f"/proc/{pid}/stat") for pid in pids]
        if all(not s.exists() or s.read_text().rpartition(")")[2].split()[0] == "Z" for s in stats):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_leaves_no_processes_behind(number: int, tmp_path: Path) -> None:
    """As at a terminal, where Ctrl-C reaches the workers too."""
    words = ["probe", "--checkpoint", "trained", "--estimators", "lr", "--copies", "20000", "--seeds", "3"]
    words += ["--workers", "2", "--out", str(tmp_path / "run"), "--batch-size", "8"]
    code = "from gradprobe.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("run/partial/*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) >= 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert gone(children)
    assert "Traceback" not in error
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "Go on with: gradprobe probe" in error
        assert "partial" in gp.open_run(tmp_path / "run").status.values


class Made:
    """A function that makes a model which only this process knows."""

    @staticmethod
    def net() -> nn.Module:
        class Local(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last = nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.last(x)

        return Local()


def unpicklable() -> Iterator[tuple[Callable[[], tuple[gp.Problem, list[Any]]], str]]:
    data = torch.zeros(6, 4), torch.arange(6) % 3
    yield lambda: (gp.Problem(Made.net(), data), ["lr"]), "the model Local cannot be sent"
    yield lambda: (problem(loss=lambda o, t: halved(o, t)), ["lr"]), "the loss .*lambda.* cannot be sent"
    yield lambda: (problem(), [Half(home=lambda: 0)]), "the estimator Half"


@pytest.mark.parametrize(("made", "says"), list(unpicklable()), ids=["model", "loss", "estimator"])
def test_what_cannot_be_pickled_is_named_before_anything_is_written(
    made: Callable[[], tuple[gp.Problem, list[Any]]], says: str, tmp_path: Path
) -> None:
    given, estimators = made()
    with pytest.raises(gp.UsageError, match=says) as caught:
        gp.probe(given, estimators, workers=2, out=tmp_path / "run", **SMALL)
    assert "\n" not in str(caught.value)
    assert "workers=1" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_noise_family_that_the_workers_lack_is_named(tmp_path: Path) -> None:
    NOISE.register("normal", summary="by another name")(NOISE.get("gaussian"))
    with pytest.raises(gp.UsageError, match="does not know the noise 'normal'"):
        gp.probe(problem(), ["lr(noise=normal)"], workers=2, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("used", [True, False])
def test_a_layer_rule_that_the_workers_lack_is_named_if_the_model_needs_it(
    used: bool, tmp_path: Path
) -> None:
    served = "torch.nn.Linear" if used else "torch.nn.Bilinear"
    RULES.register("slow", summary="known here alone", classes=(served,))(RULES.get("linear"))
    if not used:
        gp.probe(problem(), ["lr"], workers=2, out=tmp_path / "run", **SMALL)
        return
    with pytest.raises(gp.UsageError, match="does not know the layer rule 'slow'"):
        gp.probe(problem(), ["lr"], workers=2, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


SESSION = """
    import torch
    import gradprobe as gp

    class Net(torch.nn.Linear):
        pass

    {guard}
        p = gp.Problem(Net(4, 3), (torch.zeros(6, 4), torch.arange(6) % 3))
        try:
            ds = gp.probe(p, ["lr"], copies=8, block=4, seeds=2, workers=2, out="run")
            print("fine", sorted(map(str, set(ds.status.values.ravel()))))
        except gp.UsageError as error:
            print("refused:", error)
"""


def session(tmp_path: Path, guard: str, file: bool) -> str:
    code = textwrap.dedent(SESSION).format(guard=guard)
    (tmp_path / "script.py").write_text(code)
    words = [sys.executable, "script.py"] if file else [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def test_a_class_of_a_session_is_refused(tmp_path: Path) -> None:
    said = session(tmp_path, "if True:", file=False)
    assert said.startswith("refused: a worker cannot load the problem (AttributeError: ")
    assert said.count("\n") == 1
    assert "module file" in said
    assert not (tmp_path / "run").exists()


def test_a_class_of_a_script_works_behind_the_guard(tmp_path: Path) -> None:
    assert session(tmp_path, 'if __name__ == "__main__":', file=True) == "fine ['ok']\n"


def test_a_script_without_the_guard_is_told(tmp_path: Path) -> None:
    said = session(tmp_path, "if True:", file=True)
    assert said.startswith("refused: a worker ended before it had started")
    assert 'if __name__ == "__main__":' in said
    assert not (tmp_path / "run").exists()


BAD = [
    ({"workers": 0}, "workers must be a positive whole number, not 0"),
    ({"workers": -2}, "workers must be"),
    ({"workers": "two"}, "workers must be a positive whole number, not 'two'"),
    ({"workers": 2.0}, "workers must be"),
    ({"workers": True}, "workers must be"),
    ({"executor": 3}, "executor must be a concurrent.futures.Executor, not int"),
    ({"executor": ProcessPoolExecutor}, "not ProcessPoolExecutor"),
    ({"executor": ThreadPoolExecutor(1)}, "use workers=N"),
    ({"workers": 2, "executor": ThreadPoolExecutor(1)}, "not both"),
    ({"workers": 2, "threads": 0}, "threads must be"),
    ({"threads": 2}, "threads= is for workers"),
]


@pytest.mark.parametrize(("options", "says"), BAD)
def test_careless_wishes_are_one_sentence_and_write_nothing(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(gp.UsageError, match=says) as caught:
        gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_executor_that_gives_units_up() -> None:
    """As Dask does after several of its workers died of one."""

    ds = gp.probe(classifier(), ["lr"], executor=Inline(3), **SMALL)
    assert (ds.status == "failed").sum() == 2
    assert "all workers died" in ds.attrs["notes"]
    rest = {"seed": 1, "other_seed": 1}
    same(gp.probe(classifier(), ["lr"], **SMALL).sel(rest), ds.sel(rest))


def test_a_unit_that_is_given_up_does_not_hide_behind_its_saved_blocks(tmp_path: Path) -> None:
    def press(done: int, total: int, label: str) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], layers="last", out=out, progress=press, **SMALL)
    ds = gp.probe(classifier(), ["lr"], layers="last", out=out, executor=Inline(2), **SMALL)
    assert ds.status.sel(parameter="last.bias").values.tolist() == [["partial", "ok"]]
    assert "12 copies against bp failed: the executor gave it up" in ds.attrs["notes"]
    assert attribute(ds, "failed") == ["lr"]


def test_a_problem_is_pickled_with_what_it_shares() -> None:
    before = problem()
    after = pickle.loads(pickle.dumps(before))
    assert after.twin is not after.module
    assert all(a is b for a, b in zip(after.twin.parameters(), after.module.parameters(), strict=True))
    assert after.fingerprints() == before.fingerprints()
    assert torch.equal(gp.estimate(after, "lr")["last.weight"], gp.estimate(before, "lr")["last.weight"])
    data = torch.randn(100_000, 4)
    few = gp.Problem(nn.Linear(4, 3), (data[:6], torch.arange(6) % 3))
    assert len(pickle.dumps(few)) < 50_000


@pytest.mark.parametrize(
    ("location", "worker", "gpus", "gpu"),
    [
        ("cpu", 3, 0, None),
        ("cpu", 3, 2, None),
        ("cuda:0", 0, 1, 0),
        ("cuda:0", 3, 2, 1),  # workers of one's own take one after the other
        ("cuda:1", 0, 2, 1),  # those of an executor the one that was asked for
        ("cuda:3", 0, 1, 0),  # on a machine with fewer of them
        ("cuda", 1, 2, 1),
    ],
)
def test_which_gpu_a_worker_uses(location: str, worker: int, gpus: int, gpu: int | None) -> None:
    assert gpu_of(location, worker, gpus) == gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_worker_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:1")
        parcel = pack(problem(), {}, [])
    with pytest.raises(gp.UsageError, match="^the problem is on cuda:1, but a worker sees no GPU"):
        unpack(parcel.data)


def test_the_allocator_is_tuned_in_workers_alone() -> None:
    code = "from gradprobe.probes.allocator import tune_allocator; print(tune_allocator())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sys.platform == "linux")
    assert callable(tune_allocator)
