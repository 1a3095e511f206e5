"""A unit that is broken off goes on from its last saved block, to the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.estimators.base import make_all
from gradprobe.probes import unit as unit_file
from gradprobe.store import saver as saver_file
from gradprobe.store.assemble import attribute
from gradprobe.store.run import RunStore
from tests.problems_tiny import classifier
from tests.stochastic import Shaky
from tests.store.test_run import equal

NAMES = ["lr", "alr", "es", "lr(injection=joint)", Shaky(), "bp"]
SMALL = {"copies": 12, "block": 4, "seeds": 2}
UNITS = 2 * (2 + 2 + 1 + 1)
"""(lr with alr, and es, of each layer; joint; own) of each seed, bp aside."""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every block."""
    monkeypatch.setattr(saver_file, "PAUSE", 0)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Index of every block that is computed."""
    seen: list[int] = []
    true = unit_file._reads

    def reads(problem, task, blocks, settings):
        for index, read in zip(blocks, true(problem, task, blocks, settings), strict=False):
            if not task.fixed:
                seen.append(index)
            yield read

    unit_file._reads = reads
    try:
        yield seen
    finally:
        unit_file._reads = true


def stop_after(blocks: int, size: int = 4):
    def press(done: int, total: int, label: str) -> None:
        if done == blocks * size:
            signal.raise_signal(signal.SIGINT)

    return press


class Broken(BaseException):
    """A process that dies; nothing may catch it."""


@pytest.fixture(scope="module")
def unbroken() -> xr.Dataset:
    return gp.probe(classifier(), NAMES, **SMALL)


@pytest.mark.parametrize("where", ["memory", "directory"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_a_stop_after_k_blocks_returns_those_k_blocks(
    blocks: int, where: str, unbroken: xr.Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "run" if where == "directory" else None
    ds = gp.probe(classifier(), NAMES, out=out, progress=stop_after(blocks), **SMALL)
    assert ds.attrs["stopped"] == 1
    there = ds["sqnorm"].sel(estimator="lr", seed=0).notnull()
    whole, part = divmod(blocks, 3)
    count = {"first": 3 if whole else part, "last": part if whole else 0}
    for layer, most in count.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            assert there.sel(parameter=name).values.tolist() == [k < most for k in range(3)]
            word = {0: "missing", 3: "ok"}.get(most, "partial")
            assert ds.status.sel(estimator="lr", parameter=name, seed=0) == word
    for name in ("dot", "sqnorm", "block_sqnorm", "forwards", "nonfinite"):
        known = ds[name].notnull()
        assert ds[name].where(known).equals(unbroken[name].where(known)), name


@pytest.mark.parametrize("blocks", range(1, 3 * UNITS + 1, 2))
def test_what_was_stopped_goes_on_to_the_same_bits(blocks: int, unbroken: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), NAMES, out=out, progress=stop_after(blocks), **SMALL)
    with counted() as computed:
        ds = gp.probe(classifier(), NAMES, out=out, **SMALL)
    assert len(computed) == 3 * UNITS - (blocks - 1 if blocks > 3 * UNITS // 2 else blocks)  # one is bp's
    equal(ds, unbroken)
    equal(gp.open_run(out), unbroken)
    assert list((out / "partial").iterdir()) == []


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_the_smoothed_reference_too(blocks: int, tmp_path: Path) -> None:
    options = {"reference": "smoothed", "reference_copies": 8, "out": tmp_path / "run"} | SMALL
    gp.probe(classifier(), ["lr", "alr"], progress=stop_after(blocks), **options)
    ds = gp.probe(classifier(), ["lr", "alr"], **options)
    equal(ds, gp.probe(classifier(), ["lr", "alr"], **(options | {"out": None})))


@dataclass(frozen=True)
class Leaky(Shaky):
    """Loses every other block."""

    def directions(self, problem, layers, block, streams) -> dict:
        found = super().directions(problem, layers, block, streams)
        return {name: g * (float("nan") if block.index % 2 else 1.0) for name, g in found.items()}


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_lost_copies_are_counted_once(blocks: int, tmp_path: Path) -> None:
    options = SMALL | {"copies": 16, "out": tmp_path / "run"}
    gp.probe(classifier(), [Leaky()], progress=stop_after(blocks), **options)
    ds = gp.probe(classifier(), [Leaky()], **options)
    at = {"estimator": "Leaky", "parameter": "first.weight", "seed": 0}
    assert ds["nonfinite"].sel(at).values.tolist() == [0, 4, 4, 8]
    equal(ds, gp.probe(classifier(), [Leaky()], **(options | {"out": None})))


def test_time_adds_up(tmp_path: Path) -> None:
    part = gp.probe(classifier(), ["lr"], out=tmp_path / "run", progress=stop_after(2), **SMALL)
    ds = gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)
    at = {"estimator": "lr", "parameter": "first.weight", "seed": 0}
    assert 0 < float(part["seconds"].sel(at)) < float(ds["seconds"].sel(at))


def test_who_computes_elsewhere_hands_the_states_over() -> None:
    """A process without access to the run takes a start and gives back what it got to."""
    from gradprobe.probes.checks import layers_of
    from gradprobe.probes.interrupt import Stopped
    from gradprobe.probes.plan import make_plan
    from gradprobe.probes.settings import Settings
    from gradprobe.store.saver import Saver

    problem, settings = classifier(), Settings(block=4, copies=12)
    layers, done = layers_of(problem), 0
    (task, *_) = make_plan(problem, layers, make_all("lr,alr"), [0]).tasks
    known = {"bp": gp.estimate(problem, "bp", copies=1)}

    def tick(copies: int) -> None:
        nonlocal done
        done += copies
        if done == 8:
            raise Stopped

    first = Saver()
    with pytest.raises(Stopped):
        unit_file.compute(problem, task, known, settings, tick, first)
    assert first.state is not None
    assert (first.state.blocks, first.final) == (2, None)
    second, whole = Saver(first.state), Saver()
    units = [unit_file.compute(problem, task, known, settings, saver=saver) for saver in (second, whole)]
    assert second.final is not None
    assert whole.final is not None
    for name in ("dot", "sqnorm", "block_sqnorm", "nonfinite", "forwards", "reference_sqnorm"):
        assert np.array_equal(getattr(units[0], name), getattr(units[1], name))
    assert np.array_equal(second.final.sums, whole.final.sums)
    assert np.array_equal(second.final.squares, whole.final.squares)
    assert unit_file.compute(problem, task, known, settings).status == "ok"  # and without any saver


@pytest.mark.usefixtures("often")
def test_any_other_end_loses_the_block_at_hand_at_most(
    unbroken: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    true, seen = unit_file._reads, []

    def reads(*args):
        for read in true(*args):
            seen.append(read)
            if len(seen) == 6:
                raise Broken
            yield read

    with monkeypatch.context() as patch:
        patch.setattr(unit_file, "_reads", reads)
        with pytest.raises(Broken):
            gp.probe(classifier(), NAMES, out=out, **SMALL)
    ds = gp.open_run(out)
    assert (ds.status.sel(estimator="lr", seed=0) == ["ok", "ok", "partial", "partial"]).all()
    with counted() as computed:
        equal(gp.probe(classifier(), NAMES, out=out, **SMALL), unbroken)
    assert len(computed) == 3 * UNITS - 5


def test_an_error_in_progress_keeps_its_blocks(tmp_path: Path, unbroken: xr.Dataset) -> None:
    def fail(done: int, total: int, label: str) -> None:
        if done == 8:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gp.probe(classifier(), NAMES, out=tmp_path / "run", progress=fail, **SMALL)
    with counted() as computed:
        equal(gp.probe(classifier(), NAMES, out=tmp_path / "run", **SMALL), unbroken)
    assert len(computed) == 3 * UNITS - 2


def damage(content: bytes, how: str) -> bytes:
    if how == "cut":
        return content[: len(content) // 2]
    if how == "empty":
        return b""
    if how == "text":
        return b"no"
    middle = len(content) // 2
    return content[:middle] + bytes(255 - x for x in content[middle : middle + 40]) + content[middle + 40 :]


@pytest.mark.parametrize("how", ["cut", "empty", "text", "scrambled"])
def test_a_damaged_partial_state_is_computed_anew(how: str, unbroken: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), NAMES, out=out, progress=stop_after(2), **SMALL)
    (file,) = (out / "partial").iterdir()
    file.write_bytes(damage(file.read_bytes(), how))
    assert (gp.open_run(out).status != "partial").all()
    with counted() as computed:
        equal(gp.probe(classifier(), NAMES, out=out, **SMALL), unbroken)
    assert len(computed) == 3 * UNITS


def test_every_scrambled_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, progress=stop_after(2), **SMALL)
    (file,) = (out / "partial").iterdir()
    content, store = file.read_bytes(), RunStore(out)
    (state,) = store.kept.partial.of(store.kept.partial.all()[0].unit.key)
    for at in range(0, len(content), 37):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        for found in store.kept.partial.of(state.unit.key):
            assert np.array_equal(found.sums, state.sums)
            assert found.wanted == state.wanted


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"reference_copies": 8}, {"reference_copies": 12}),
        ({"reference": "bp"}, {}),
        ({"estimators": ["lr"]}, {}),
    ],
)
def test_a_partial_state_of_something_else_is_left_alone(first: dict, then: dict, tmp_path: Path) -> None:
    common = {"estimators": ["lr", "alr"], "reference": "smoothed", "reference_copies": 8} | SMALL
    out = tmp_path / "run"
    gp.probe(classifier(), out=out, progress=stop_after(2), **(common | first))
    with counted() as computed:
        ds = gp.probe(classifier(), out=out, **(common | then))
    assert len(computed) == 12
    equal(ds, gp.probe(classifier(), **(common | then)))
    gp.probe(classifier(), out=out, **(common | then))
    assert list((out / "partial").iterdir()) == []


def test_a_disk_without_room_for_partial_states_does_no_harm(
    unbroken: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = os.replace

    def full(source, target):
        if Path(target).parent.name == "partial":
            raise OSError(28, "No space left on device")
        return true(source, target)

    monkeypatch.setattr(os, "replace", full)
    equal(gp.probe(classifier(), NAMES, out=tmp_path / "run", **SMALL), unbroken)
    with pytest.raises(gp.UsageError, match="cannot write"):
        gp.probe(classifier(), ["aes"], out=tmp_path / "run", progress=stop_after(2), **SMALL)


def test_saving_costs_a_twentieth_at_most() -> None:
    now = [0.0]
    pace = saver_file.Pace(lambda: now[0])
    assert pace.due()  # the first block always
    now[0] += 1.0
    pace.saved()
    now[0] += 19.9
    assert not pace.due()
    now[0] += 0.2
    assert pace.due()


SWEEP = {"estimators": ["lr", "alr", Shaky()], "copies": 8, "block": 4, "seeds": 2, "layers": "last"}


def writes(out: Path, monkeypatch: pytest.MonkeyPatch, dies: int, after: bool, **options: object) -> int:
    """Probe; die at a write or removal of a file, before or after it happened. Return how many there were."""
    count = 0

    def counting(true):
        def act(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == dies and not after:
                raise Broken
            result = true(*args, **kwargs)
            if count == dies:
                raise Broken
            return result

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counting(os.replace))
        patch.setattr(Path, "unlink", counting(Path.unlink))
        gp.probe(classifier(), out=out, **(SWEEP | options))
    return count


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("keep", ["products", "sums", "moments"])
def test_a_death_between_any_two_writes_changes_nothing(
    keep: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gp.probe(classifier(), keep=keep, **SWEEP)
    total = writes(tmp_path / "whole", monkeypatch, 0, after, keep=keep)
    assert total > 12
    for dies in range(1, total + 1):
        out = tmp_path / f"run{dies}"
        with pytest.raises(Broken):
            writes(out, monkeypatch, dies, after, keep=keep)
        if (out / "run.json").exists():
            gp.open_run(out)
        gp.probe(classifier(), out=out, keep=keep, **SWEEP)
        equal(gp.open_run(out), whole)
        names = {f.relative_to(out) for f in out.rglob("*.npz") if not f.name.startswith(".tmp-")}
        expected = {f.relative_to(tmp_path / "whole") for f in (tmp_path / "whole").rglob("*.npz")}
        assert names == expected


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("after", [False, True])
def test_a_death_while_copies_are_added_changes_nothing(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"copies": 16, "keep": "sums"}
    whole = gp.probe(classifier(), **(SWEEP | more))
    gp.probe(classifier(), out=tmp_path / "whole", keep="sums", **SWEEP)
    total = writes(tmp_path / "whole", monkeypatch, 0, after, **more)
    for dies in range(1, total + 1):
        out = tmp_path / f"run{dies}"
        gp.probe(classifier(), out=out, keep="sums", **SWEEP)
        with pytest.raises(Broken):
            writes(out, monkeypatch, dies, after, **more)
        equal(gp.probe(classifier(), out=out, **(SWEEP | more)), whole)


def test_statistics_figures_and_tables_of_what_was_stopped(tmp_path: Path) -> None:
    from gradprobe.report.tables import by_layer, notes, summary

    for blocks in (1, 2, 16):
        ds = gp.probe(classifier(), ["lr", "es"], progress=stop_after(blocks), copies=16, block=4, seeds=3)
        assert (ds.status == "partial").any() or blocks == 16
        gp.stats.alignment(ds)
        gp.stats.alignment(ds, over="model")
        gp.plots.similarity(ds, save=tmp_path / "figure")
        summary(ds)
        assert len(by_layer(ds)) == 4
        if blocks < 16:
            assert any("computed in part" in note for note in notes(ds))


def test_where_seeds_are_whole_one_in_part_is_left_out() -> None:
    def press(done: int, total: int, label: str) -> None:
        if done == 2 * 2 * 16 + 4:
            signal.raise_signal(signal.SIGINT)

    options = {"copies": 16, "block": 4}
    ds = gp.probe(classifier(), ["lr"], seeds=3, progress=press, **options)
    assert (ds.status.sel(seed=2, parameter="first.bias") == "partial").all()
    two = gp.probe(classifier(), ["lr"], seeds=2, **options)
    found = gp.stats.alignment(ds).sel(layer="first", seed=[0, 1])
    xr.testing.assert_equal(found, gp.stats.alignment(two).sel(layer="first"))
    assert ds["sqnorm"].sel(seed=2, parameter="first.bias", copies=4).notnull().all()


def test_more_copies_that_were_stopped_are_shown_and_count(tmp_path: Path) -> None:
    out, options = tmp_path / "run", {"block": 4, "seeds": 2, "layers": "last"}
    gp.probe(classifier(), ["lr"], copies=8, out=out, keep="sums", **options)
    ds = gp.probe(classifier(), ["lr"], copies=24, out=out, progress=stop_after(4), **options)
    assert ds.status.sel(parameter="last.bias").values.tolist() == [["partial", "ok"]]
    there = ds["sqnorm"].sel(parameter="last.bias").isel(estimator=0).notnull().sum("copies")
    assert there.values.tolist() == [4, 2]
    before = gp.probe(classifier(), ["lr"], copies=8, **options)
    found = gp.stats.alignment(ds)
    xr.testing.assert_equal(found["ceiling"], gp.stats.alignment(before)["ceiling"])
    equal(
        gp.probe(classifier(), ["lr"], copies=24, out=out, **options),
        gp.probe(classifier(), ["lr"], copies=24, **options),
    )


def fail_from(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Let no unit be computed from a block on."""
    true = unit_file._reads

    def reads(problem, task, blocks, settings):
        for index, read in zip(blocks, true(problem, task, blocks, settings), strict=False):
            if index >= block and not task.fixed:
                raise UsageError("there is no room")
            yield read

    monkeypatch.setattr(unit_file, "_reads", reads)


def test_more_copies_that_fail_do_not_hide_behind_older_ones(tmp_path: Path) -> None:
    from gradprobe.report.tables import notes

    out, options = tmp_path / "run", {"block": 4, "seeds": 2, "layers": "last"}
    gp.probe(classifier(), ["lr", "bp"], copies=8, out=out, **options)
    with pytest.MonkeyPatch.context() as patch:
        fail_from(patch, 2)
        ds = gp.probe(classifier(), ["lr", "bp"], copies=16, out=out, **options)
    assert (ds.status.sel(parameter="last.bias") == "ok").all()
    assert attribute(ds, "notes") == {"lr": {"16 copies against bp failed: there is no room": "last"}}
    assert attribute(ds, "failed") == ["lr"]
    assert "lr, layer 'last': 16 copies against bp failed: there is no room." in notes(ds)
    ds = gp.probe(classifier(), ["lr", "bp"], copies=16, out=out, **options)
    assert (attribute(ds, "notes"), attribute(ds, "failed")) == ({}, [])


def test_another_reference_that_fails_does_not_hide_behind_the_first(tmp_path: Path) -> None:
    options = {"out": tmp_path / "run", "reference_copies": 8} | SMALL
    gp.probe(classifier(), ["lr"], **options)
    with pytest.MonkeyPatch.context() as patch:
        fail_from(patch, 1)
        ds = gp.probe(classifier(), ["lr"], reference="smoothed", **options)
    assert (ds.status == "ok").all()
    assert "12 copies against bp and smoothed failed: there is no room" in ds.attrs["notes"]


@pytest.mark.usefixtures("often")
def test_a_unit_that_fails_keeps_its_saved_blocks(tmp_path: Path) -> None:
    options = {"out": tmp_path / "run", "layers": "last"} | SMALL
    with pytest.MonkeyPatch.context() as patch:
        fail_from(patch, 2)
        ds = gp.probe(classifier(), ["lr"], **options)
    assert (ds.status.sel(parameter="last.bias") == "partial").all()
    assert "12 copies against bp failed: there is no room" in ds.attrs["notes"]
    with counted() as computed:
        ds = gp.probe(classifier(), ["lr"], **options)
    assert computed == [2, 2]
    equal(ds, gp.probe(classifier(), ["lr"], **(options | {"out": None})))


def test_one_tensor_of_moments_is_not_shared_with_its_state() -> None:
    from gradprobe.probes.moments import Moments

    a, b = (Moments(["w"], {"bp": {"w": torch.ones(3)}}) for _ in range(2))
    a.add({"w": torch.tensor([1.0, 2.0, 3.0])})
    sums, squares, rows = a.sums(), a.squares(), a.arrays()
    b.resume({"w": torch.ones(3)}, sums, squares, rows)
    for m in (a, b):
        m.add({"w": torch.tensor([0.1, 0.2, 0.3])})
    assert np.array_equal(sums, [1.0, 2.0, 3.0])
    assert squares[0] == 14.0
    for name, values in a.arrays().items():
        assert np.array_equal(values, b.arrays()[name])
