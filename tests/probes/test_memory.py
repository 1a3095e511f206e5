"""Memory: what is given bounds how many copies run at once; the numbers do not depend on it."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import gradprobe as gp
from gradprobe.core.remembered import Remembered
from gradprobe.core.streams import Block, Streams
from gradprobe.engine import memory as memory_module
from gradprobe.engine.cgroup import left_in_groups
from gradprobe.engine.draw import Draw
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import SPARE, bytes_per_copy, is_out_of_memory, parse_memory, room_for
from gradprobe.engine.parts import calls, whole
from gradprobe.engine.preflight import traced
from gradprobe.estimators import draws as draws_module
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_blocks
from gradprobe.estimators.readout import ReadOut
from gradprobe.probes.checks import layers_of
from gradprobe.problems.networks.resnet5 import ResNet5
from gradprobe.store.run import RunStore
from tests.problems_tiny import classifier
from tests.strength.model_file import problem

MIB = 2**20
METHODS = ["lr", "es", "lr(centre=mean)", "lr(injection=joint)"]


def images(batch: int = 6) -> gp.Problem:
    torch.manual_seed(0)
    return gp.Problem(ResNet5(width=4), (torch.randn(batch, 3, 32, 32), torch.arange(batch)))


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("2GiB", 2**31),
        ("500MB", 500_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("64kib", 65536),
        (1000, 1000),
        (None, None),
    ],
)
def test_sizes(given: str | int | None, size: int | None) -> None:
    assert parse_memory(given) == size


@pytest.mark.parametrize("given", ["2 apples", "-1GB", "", "0", True, 2.5j, "GiB"])
def test_what_is_no_size(given: object) -> None:
    with pytest.raises(gp.UsageError, match="memory is written as"):
        gp.probe(classifier(), "lr", copies=20, memory=given)


def test_a_models_own_vmap_is_counted() -> None:
    class Waves(torch.nn.Module):
        def __init__(self, within) -> None:
            super().__init__()
            self.within = within
            self.linear = torch.nn.Linear(4, 500)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.within(lambda row: row.sin().cos())(self.linear(x)).sum(-1)

    def needs(within) -> int:
        batch = torch.ones(6, 4), torch.zeros(6)
        problem = gp.Problem(Waves(within), batch, "mse")
        assert gp.estimate(problem, "lr", copies=10)["linear.weight"].shape == (500, 4)
        return bytes_per_copy(problem, Draw(), layers_of(problem))

    plain, wrapped = needs(lambda f: f), needs(torch.func.vmap)
    assert plain <= wrapped < 3 * plain


def test_calls_hold_every_copy_once() -> None:
    for paired in (False, True):
        for most in range(1, 60):
            if paired and most == 1:
                continue
            seen = [part for call in calls(range(3), 12, paired, most) for part in call]
            for block in range(3):
                drawn = [j for part in seen if part.block == block for j in part.drawn]
                assert drawn == list(whole(Block(block, 12), paired).drawn)
            sizes = [sum(part.copies for part in call) for call in calls(range(3), 12, paired, most)]
            assert max(sizes) <= most


def smallest(problem: gp.Problem, methods: list[str]) -> int:
    """Bytes that are just enough for two copies of every unit."""
    layers = layers_of(problem)
    numel = sum(layer.numel for layer in layers)
    return 2 * bytes_per_copy(problem, Draw(injection="joint"), layers) + 8 * numel * (len(methods) + 3)


@pytest.mark.parametrize("engine", ["loop", "tile", "vmap", "vmap graph channels_last x7", "loop graph x3"])
def test_three_budgets_give_the_same_moments(engine: str) -> None:
    """float32: sums of 12 terms in another order, 1/sigma amplifies roundings of the loss: 1e-4 of the size."""
    problem = images()
    least = smallest(problem, METHODS)
    options = {"copies": 24, "block": 12, "seeds": 1, "sigma": 0.1, "layers": ["conv2", "fc"]}
    runs = [
        gp.probe(problem, METHODS, engine=engine, memory=memory, **options)
        for memory in (least, 4 * least, None)
    ]
    for ds in runs[1:]:
        for name in ("sqnorm", "block_sqnorm", "dot"):
            assert np.allclose(ds[name], runs[0][name], rtol=2e-3, atol=2e-4 * float(runs[0][name].max()))


def test_float64_budgets_agree_to_rounding() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()
    problem = gp.Problem(net, (torch.randn(6, 5).double(), torch.arange(6) % 3))
    streams, readouts = Streams(0, 0), [ReadOut(), ReadOut("mean"), ReadOut("none", "sign")]
    for draw in (Draw(), Draw(antithetic=True), Draw(injection="joint"), Draw("weights", share="batch")):
        layers = layers_of(problem)[: None if draw.injection == "joint" else 1]
        every = [
            list(read_blocks(Reading(problem, draw, layers, readouts, streams), range(3), 12, "loop", most))
            for most in (2, 5, 12, 100)
        ]
        for reads in every[1:]:
            for one, other in zip(reads, every[0], strict=True):
                for a, b in zip(one.directions, other.directions, strict=True):
                    assert all(torch.allclose(a[n], b[n], rtol=1e-9, atol=1e-12) for n in a)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many copies each call of an engine ran."""
    found: list[int] = []
    true = draws_module.run

    def run(problem, draw, layers, parts, *args):
        found.append(sum(part.copies for part in parts))
        return true(problem, draw, layers, parts, *args)

    monkeypatch.setattr(draws_module, "run", run)
    return found


def test_estimates_of_one_large_block_are_bounded_by_what_is_free(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = images()
    layer = layers_of(problem)[0]
    each = bytes_per_copy(problem, Draw(), [layer])
    monkeypatch.setattr("gradprobe.engine.memory.free_memory", lambda device: 2 * 8 * each)
    monkeypatch.setattr(draws_module, "LITTLE", 0)
    gp.estimate(problem, "lr", copies=23, layers=[layer.name])
    assert sum(sizes) == 23
    assert 1 < max(sizes) < 8


def test_a_budget_bounds_the_copies_in_a_call(sizes: list[int]) -> None:
    problem = images()
    layer = layers_of(problem)[0]
    each = bytes_per_copy(problem, Draw(), [layer])
    gp.probe(
        problem, "lr", copies=60, block=30, seeds=1, layers="conv1", memory=7 * each + 8 * 5 * layer.numel
    )
    assert max(sizes) == 7
    assert sum(sizes) == 60


def test_too_little_memory_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        gp.UsageError, match=r"layer 'conv1' needs about \d+ MiB .* more than the 0 MiB of memory="
    ):
        gp.probe(images(), "lr", copies=20, memory="100KB", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Small:
    """A machine that runs out of memory when more than ``most`` copies run in one call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
        self.calls: list[int] = []
        true = draws_module.run

        def run(problem, draw, layers, parts, *args):
            copies = sum(part.copies for part in parts)
            self.calls.append(copies)
            if copies > most:
                raise error
            return true(problem, draw, layers, parts, *args)

        monkeypatch.setattr(draws_module, "run", run)


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@functools.cache
def with_room(method: str) -> xr.Dataset:
    return gp.probe(classifier(), method, copies=48, block=16, seeds=2)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "method", ["lr", "lr(centre=mean)", "lr(antithetic=True)", "es", "lr(injection=joint)"]
)
def test_out_of_memory_halves_the_call_and_repeats_the_block(
    error: Exception, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_room(method)
    machine = Small(monkeypatch, 5, error)
    ds = gp.probe(classifier(), method, copies=48, block=16, seeds=2)
    assert (ds["status"] == "ok").all()
    assert machine.calls[:3] == [16, 8, 4]
    assert machine.calls.count(16) == ds.sizes["seed"] * (1 if "joint" in method else 2)  # once for each unit
    for name in ("sqnorm", "dot", "block_sqnorm"):
        xr.testing.assert_allclose(ds[name], whole[name], rtol=1e-3, atol=1e-5 * float(whole[name].max()))


def test_looking_for_an_engine_survives_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given):
        raise MemoryError

    monkeypatch.setattr("gradprobe.engine.preflight.run", full)
    monkeypatch.setattr("gradprobe.engine.preflight.execute", full)
    ds = gp.probe(classifier(), "lr", copies=1000, block=500, seeds=2)
    assert (ds["status"] == "ok").all()


def test_a_single_copy_that_does_not_fit_is_a_failed_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    Small(monkeypatch, 0, MemoryError())
    ds = gp.probe(classifier(), "lr", copies=16, block=8, seeds=1)
    assert (ds["status"] == "failed").all()
    assert "memory ran out with a single copy" in ds.attrs["notes"]


def test_what_is_taken_for_lack_of_memory() -> None:
    assert all(is_out_of_memory(error) for error in ERRORS)


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Small(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gp.probe(classifier(), "lr", copies=16, block=8, seeds=1)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_workers_share_what_is_given_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = images()
    layer = layers_of(problem)[0]
    each, sums = bytes_per_copy(problem, Draw(), [layer]), 8 * layer.numel * 4
    given = 4 * (10 * each + sums)
    assert room_for(problem, Draw(), [layer], 2, given, sharers=4) == 10
    with pytest.raises(gp.UsageError, match=r"MiB of memory= for each of 500 workers; give more"):
        room_for(problem, Draw(), [layer], 2, given, sharers=500)
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 2 * given)
    assert room_for(problem, Draw(), [layer], 2, None, sharers=4) == 10
    assert room_for(problem, Draw(), [layer], 2, None, sharers=500) == 1


def test_only_memory_that_was_given_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 10)
    assert (gp.probe(problem(), "lr", copies=8, block=4, seeds=1, workers=2)["status"] == "ok").all()


def test_the_default_leaves_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = images()
    layer = layers_of(problem)[0]
    each, sums = bytes_per_copy(problem, Draw(), [layer]), 8 * layer.numel * 4
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 2 * (10 * each + sums))
    assert room_for(problem, Draw(), [layer], 2, None) == 10
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 10)
    assert room_for(problem, Draw(), [layer], 2, None) == 1  # it is tried: what is free is a guess


def written(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


V1, V2 = "4:memory:/job/step\n1:cpu:/job\n0::/", "0::/job/step"


def test_the_tightest_group_of_version_2_counts(tmp_path: Path) -> None:
    written(tmp_path / "proc/self", cgroup=V2)
    base = tmp_path / "sys/fs/cgroup"
    assert left_in_groups(tmp_path) is None
    stat = "anon 50\ninactive_file 30\nactive_file 5"
    written(base / "job/step", memory__max="max", memory__current=90, memory__stat=stat)
    assert left_in_groups(tmp_path) is None
    written(base / "job", memory__max=100, memory__current=90, memory__stat=stat)
    assert left_in_groups(tmp_path) == 100 - (90 - 30)
    written(base / "job/step", memory__max=50)
    assert left_in_groups(tmp_path) == 0  # it uses more than a limit that was lowered


def test_groups_of_version_1_count_what_is_below_them(tmp_path: Path) -> None:
    written(tmp_path / "proc/self", cgroup=V1)
    stat = "inactive_file 1\ntotal_inactive_file 30"
    given = {"memory__usage_in_bytes": 90, "memory__stat": stat}
    base = tmp_path / "sys/fs/cgroup/memory"
    written(base, memory__limit_in_bytes=2**63 - 4096, **given)
    written(base / "job/step", memory__limit_in_bytes=200, **given)
    assert left_in_groups(tmp_path) == 200 - (90 - 30)


@pytest.mark.parametrize(
    ("lines", "folder", "limit", "usage"),
    [
        (V2, "sys/fs/cgroup", "memory__max", "memory__current"),
        (V1, "sys/fs/cgroup/memory", "memory__limit_in_bytes", "memory__usage_in_bytes"),
    ],
)
def test_in_a_container_the_root_is_the_group(
    lines: str, folder: str, limit: str, usage: str, tmp_path: Path
) -> None:
    written(tmp_path / "proc/self", cgroup=lines)
    written(tmp_path / folder, **{limit: 100, usage: 60}, memory__stat="anon 60")
    assert left_in_groups(tmp_path) == 40


def test_without_groups_nothing_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert left_in_groups(tmp_path) is None
    monkeypatch.setattr(memory_module, "left_in_groups", lambda: 7)
    assert memory_module.free_memory(torch.device("cpu")) == 7


def test_large_things_give_way_to_later_ones() -> None:
    made: list[str] = []
    kept = Remembered()

    def get(key: str, size: int | None = 10) -> str:
        return kept.get(key, lambda: made.append(key) or key, None if size is None else lambda value: size)

    for key in "abab":
        assert get(key) == key
    get("small", None)
    kept.limit = 25
    get("c")  # "a" was not asked for the longest
    assert made == ["a", "b", "small", "c"]
    get("b"), get("small", None)
    get("a")
    assert made == ["a", "b", "small", "c", "a"]
    get("huge", 1000)
    assert get("huge", 1000) == "huge"
    assert made[5:] == ["huge"]
    get("b")
    assert made[6:] == ["b"]


def kept_after_each_unit(monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[list[int], xr.Dataset]:
    """Bytes of large things that a probe of six traced layers remembers."""
    torch.manual_seed(0)
    problem = gp.Problem(
        torch.nn.Sequential(*[m for _ in range(6) for m in (torch.nn.Linear(64, 64), torch.nn.Tanh())]),
        (torch.randn(64, 64), torch.arange(64)),
    )
    found: list[int] = []
    true = RunStore.add

    def add(store: RunStore, unit: object) -> None:
        found.append(sum(problem._cache._sizes.values()))
        true(store, unit)

    monkeypatch.setattr(RunStore, "add", add)
    ds = gp.probe(problem, "lr", copies=8, block=4, seeds=2, keep="moments", engine="loop graph", **options)
    monkeypatch.undo()
    return found, ds


def test_clean_inputs_and_traces_of_all_layers_stay_within_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs of a layer are 16 KiB, a trace holds some more; without a limit they add up over layers."""
    free, whole = kept_after_each_unit(monkeypatch)
    assert free[:6] == sorted(free[:6])
    assert free[5] > 6 * 2**14
    tight, least = kept_after_each_unit(monkeypatch, memory=2**18 * 2)
    assert max(tight) <= SPARE * 2**18 * 2 < free[5]
    for name in ("dot", "sqnorm", "block_sqnorm"):
        np.testing.assert_allclose(least[name], whole[name], rtol=1e-4)


def test_a_trace_keeps_its_operations_and_nothing_of_how_it_was_made() -> None:
    problem = images()
    with problem.frozen():
        layer = layers_of(problem)[1]
        graph = traced(problem, Draw(), [layer], Engine.parse("loop graph"))
    assert not any(node.meta for node in graph.run.graph.nodes)
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in vars(graph.run).values()
        if isinstance(t, torch.Tensor)
    }
    own = {p.untyped_storage().data_ptr() for p in problem.parameters.values()}
    least = sum(size for at, size in held.items() if at not in own)
    assert least <= graph.bytes <= least + 10**6


def test_peak_is_recorded_for_every_unit() -> None:
    gc.collect()
    ds = gp.probe(images(), ["lr", "es"], copies=20, seeds=2)
    peaks = ds["peak_bytes"].sum("parameter")
    assert (peaks > 100 * MIB).all()  # resident memory of the process: torch alone is more
