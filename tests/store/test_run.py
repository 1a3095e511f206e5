from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.store import files
from gradprobe.store import run as run_file
from gradprobe.store.schema import SCHEMA_VERSION
from tests.problems_tiny import classifier, linear_problem

SMALL = {"copies": 12, "block": 4, "seeds": 2}


MEASURED = ("seconds", "peak_bytes")


def equal(a: xr.Dataset, b: xr.Dataset) -> None:
    """Everything but what is measured anew each time."""
    xr.testing.assert_identical(
        a.drop_vars(MEASURED).drop_attrs(deep=False), b.drop_vars(MEASURED).drop_attrs(deep=False)
    )


def test_a_directory_gives_what_memory_gives(tmp_path: Path) -> None:
    names = ["lr", "alr", "es", "bp"]
    kept = gp.probe(classifier(), names, out=tmp_path / "run", **SMALL)
    equal(kept, gp.probe(classifier(), names, **SMALL))
    opened = gp.open_run(tmp_path / "run")
    xr.testing.assert_identical(opened, kept)
    assert opened.attrs["schema_version"] == SCHEMA_VERSION


def test_one_file_for_each_unit(tmp_path: Path) -> None:
    gp.probe(classifier(), ["lr", "alr", "hybrid"], out=tmp_path / "run", **SMALL)
    # lr and alr share the draws of 2 layers, hybrid adds ES for both; 2 seeds
    assert len(list((tmp_path / "run" / "units").iterdir())) == 8


def test_estimators_seeds_and_layers_can_be_added(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], layers="last", out=out, copies=8, block=4, seeds=[0])
    files = {f: f.stat().st_mtime_ns for f in (out / "units").iterdir()}
    ds = gp.probe(classifier(), ["alr", "lr"], out=out, **SMALL)
    assert list(ds.estimator.values) == ["lr", "alr"]
    assert all(f.stat().st_mtime_ns == t for f, t in files.items())
    both = gp.probe(classifier(), ["lr", "alr"], **SMALL)
    equal(ds, both)
    assert (ds.status == "ok").all()


def test_what_is_there_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gp.probe(classifier(), ["lr", "alr"], out=tmp_path / "run", **SMALL)
    monkeypatch.setattr("gradprobe.probes.run.compute", lambda *a: pytest.fail("computed again"))
    gp.probe(classifier(), ["alr", "lr"], out=tmp_path / "run", **SMALL)


def test_a_stopped_run_keeps_what_it_finished(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, label: str) -> None:
        if done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        gp.probe(classifier(), ["lr"], out=tmp_path / "run", progress=stop, **SMALL)
    part = gp.open_run(tmp_path / "run")
    assert set(np.unique(part.status.values)) == {"ok", "partial", "missing"}
    started = part.where(part.status == "partial", drop=True)
    assert list(started["sqnorm"].notnull().any("parameter").squeeze().values) == [True, False, False]
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    whole = gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)
    equal(whole, gp.probe(classifier(), ["lr"], **SMALL))


@pytest.mark.parametrize(
    ("problem", "options", "says"),
    [
        (lambda: classifier(seed=1), SMALL, "another model and batch"),
        (linear_problem, SMALL, "another model and batch and loss"),
        (classifier, {**SMALL, "block": 2}, "another block"),
        (classifier, {**SMALL, "root_seed": 1}, "another root_seed"),
    ],
)
def test_a_directory_of_another_run_is_refused(tmp_path: Path, problem, options: dict, says: str) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    with pytest.raises(gp.UsageError, match=says):
        gp.probe(problem(), ["lr"], out=out, **options)
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(gp.UsageError, match="not a gradprobe run"):
        gp.probe(classifier(), ["lr"], out=tmp_path, **SMALL)
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(gp.UsageError, match="not a gradprobe run"):
        gp.open_run(tmp_path)


def test_damaged_and_newer_runs_are_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    unit = next((out / "units").iterdir())
    unit.write_bytes(unit.read_bytes()[:100])
    with pytest.raises(gp.UsageError, match="delete it"):
        gp.open_run(out)
    data = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(data | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(gp.UsageError, match="Update it"):
        gp.open_run(out)
    (out / "run.json").write_text("{")
    with pytest.raises(gp.UsageError, match="damaged"):
        gp.open_run(out)


def test_run_json_holds_what_a_run_needs(tmp_path: Path) -> None:
    gp.probe(classifier(), "lr(sigma=0.1),es", out=tmp_path / "run", **SMALL)
    data = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(data["identity"]) == {"model", "batch", "loss", "block", "root_seed", "noise_version"}
    assert data["configuration"]["estimators"] == ["lr(sigma=0.1)", "es"]
    assert data["environment"]["torch"]
    assert [x["name"] for x in data["layers"]] == ["first", "last"]


def test_atomic_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(gp.UsageError, match="No space left on device; what was finished is kept"):
        files.write_atomically(tmp_path / "x", b"new")
    assert [f.name for f in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_layers_of_two_requests_add_up(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for names in (["lr", "bp", "es(injection=joint)"],):
        gp.probe(classifier(), names, layers="first", out=out, **SMALL)
        ds = gp.probe(classifier(), names, layers="last", out=out, **SMALL)
    assert (ds.status == "ok").all()
    xr.testing.assert_identical(gp.open_run(out), ds)
    assert (gp.probe(classifier(), ["bp"], out=out, **SMALL).status == "ok").all()


def test_a_later_request_takes_over_the_references_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(
        classifier(), ["lr"], reference="smoothed", reference_copies=8, out=out, copies=8, block=4, seeds=2
    )
    ds = gp.probe(classifier(), ["lr"], reference_copies=8, out=out, **SMALL)
    assert ds["dot"].notnull().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: gp.Problem(_with_relu(p.module), (p.inputs, p.target)),
        lambda p: gp.Problem(p.module, (p.inputs, p.target), weights=[0.5] + [0.5 / 7] * 7),
        lambda p: gp.Problem(p.module, (p.inputs, p.target), _smoothed(0.5)),
    ],
)
def test_what_names_cannot_tell_apart_numbers_do(change, tmp_path: Path) -> None:
    plain = classifier()
    problem = gp.Problem(plain.module, (plain.inputs, plain.target), _smoothed(0.0))
    gp.probe(problem, ["lr"], out=tmp_path / "run", **SMALL)
    with pytest.raises(gp.UsageError, match="another"):
        gp.probe(change(problem), ["lr"], out=tmp_path / "run", **SMALL)
    gp.probe(
        gp.Problem(problem.module, (problem.inputs, problem.target), _smoothed(0.0)),
        ["alr"],
        out=tmp_path / "run",
        **SMALL,
    )


def _smoothed(amount: float):
    import torch.nn.functional as F

    return lambda output, target: F.cross_entropy(output, target, label_smoothing=amount, reduction="none")


def _with_relu(module):
    import copy

    from torch import nn

    other = copy.deepcopy(module)
    other.tanh = nn.ReLU()
    return other


def test_edited_code_of_a_users_estimator_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.probes.test_probe import Signed

    gp.probe(classifier(), [Signed()], out=tmp_path / "run", **SMALL)
    monkeypatch.setattr("inspect.getsource", lambda cls: "edited")
    calls = []
    true = run_file.RunStore.add
    monkeypatch.setattr(run_file.RunStore, "add", lambda self, unit: (calls.append(unit), true(self, unit)))
    gp.probe(classifier(), [Signed()], out=tmp_path / "run", **SMALL)
    assert len(calls) == 1


def test_a_crash_before_run_json_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-abc").touch()
    gp.probe(classifier(), ["lr"], out=tmp_path / "run", **SMALL)


def test_only_old_temporary_files_are_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    old = [out / ".tmp-a", out / "units" / ".tmp-b", out / "partial" / ".tmp-c"]
    young = [out / "units" / ".tmp-d", out / "units" / ".notes"]
    for file in (*old, *young):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    for file in (*old, young[1]):
        os.utime(file, (time.time() - 3700,) * 2)
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    assert [file.exists() for file in (*old, *young)] == [False] * 3 + [True] * 2


@contextmanager
def read_only(folder: Path):
    raise PermissionError(13, "Permission denied", str(folder / ".lock"))
    yield


@pytest.mark.parametrize("where", ["lock", "units"])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, true = tmp_path / "run", Path.mkdir

    def mkdir(path: Path, *args: object, **options: object) -> None:
        if path.name == "units":
            raise PermissionError(13, "Permission denied", str(path))
        true(path, *args, **options)

    if where == "lock":
        monkeypatch.setattr(run_file, "locked", read_only)
    else:
        monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(gp.UsageError, match=f"cannot write {out}: Permission denied; what was finished"):
        gp.probe(classifier(), ["lr"], out=out, **SMALL)


@pytest.mark.parametrize("text", ['{"schema_version": 1}', '{"schema_version": "2"}', "[]"])
def test_other_json_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(gp.UsageError, match="damaged"):
        gp.open_run(tmp_path)


@pytest.mark.parametrize("path", [None, 3, ["runs/a"]])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(gp.UsageError, match="open_run takes the folder of a run"):
        gp.open_run(path)
