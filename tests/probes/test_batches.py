"""Several batches: each is a run of its own with noise of its own, and one Dataset holds them all."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Streams
from gradprobe.probes import batches as batches_file
from gradprobe.probes.batches import root_of
from gradprobe.problems.origin import Origin
from gradprobe.problems.seeded import seeded
from gradprobe.problems.sources.python import as_data
from gradprobe.store.assemble import attribute
from tests.problems_tiny import classifier
from tests.store.test_run import equal

SMALL: dict[str, Any] = {"copies": 8, "block": 4, "seeds": 2}
NAMES = ["lr", "alr", "es", "bp"]
OF_SEVERAL = ["batch", "batch_product", "other_batch", "sqnorm_of_batch", "loss_of_batch"]


def other_batches(count: int, samples: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(samples, 4, generator=generator), torch.randint(0, 3, (samples,), generator=generator))
        for _ in range(count)
    ]


def failing_batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from other_batches(1)
    raise OSError("disk\ngone")


@pytest.fixture(scope="module")
def unbroken() -> xr.Dataset:
    return gp.probe(classifier(), NAMES, batches=other_batches(2), **SMALL)


def test_each_batch_is_the_run_that_it_would_be_alone(unbroken: xr.Dataset) -> None:
    assert unbroken["batch"].values.tolist() == [0, 1, 2]
    assert unbroken.attrs["batches"] == 3
    first = gp.probe(classifier(), NAMES, **SMALL)
    equal(unbroken.isel(batch=0).drop_vars(OF_SEVERAL), first)
    problem = classifier()
    for number, batch in enumerate(other_batches(2), start=1):
        alone = gp.Problem(problem.module, batch)
        ds = gp.probe(alone, NAMES, root_seed=root_of(0, number), **SMALL)
        equal(unbroken.isel(batch=number).drop_vars(OF_SEVERAL), ds)


def test_noise_is_independent_between_batches() -> None:
    roots = [root_of(root, batch) for root in (0, 1, 2) for batch in range(50)]
    assert len(set(roots)) == len(roots)
    assert [root_of(7, 0), root_of(0, 0)] == [7, 0]
    draws = [
        Streams(root_of(0, b), 0).generator("gaussian", "activations", "fc", 0, 0).standard_normal(4000)
        for b in range(6)
    ]
    # 15 correlations of 4000 normal numbers: |r| > 5 / sqrt(4000) has probability 15 * 6e-7
    correlations = np.corrcoef(draws)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


def test_products_are_those_of_naive_gradients(unbroken: xr.Dataset) -> None:
    problem = classifier()
    gradients = []
    for inputs, target in [(problem.inputs, problem.target), *other_batches(2)]:
        module = copy.deepcopy(problem.module).double()
        F.cross_entropy(module(inputs.double()), target).backward()
        gradients.append({name: p.grad.numpy() for name, p in module.named_parameters()})
    for p in unbroken["parameter"].values:
        for b, c in np.ndindex(3, 3):
            value = float(unbroken["batch_product"].sel(parameter=p, batch=b, other_batch=c))
            assert value == pytest.approx((gradients[b][p] * gradients[c][p]).sum(), rel=1e-4, abs=1e-9)


def test_a_number_means_those_that_follow_in_the_split() -> None:
    options: dict[str, Any] = {"layers": "fc", **SMALL}
    problem = gp.load_problem(checkpoint="early", batch_size=8, first=16)
    ds = gp.probe(problem, ["lr", "bp"], batches=3, reference=("bp", "dataset"), **options)
    for number, first in enumerate((16, 24, 32)):
        alone = gp.load_problem(checkpoint="early", batch_size=8, first=first)
        expected = gp.probe(alone, ["lr", "bp"], root_seed=root_of(0, number), **options)
        xr.testing.assert_allclose(
            ds["dot"].sel(batch=number, reference="bp", drop=True),
            expected["dot"].sel(reference="bp", drop=True),
        )
    whole = ds["reference_sqnorm"].sel(reference="dataset")
    assert np.allclose(whole, whole.isel(batch=0))
    with pytest.raises(UsageError, match="there are 179 batches of 8 samples from position 0 on, not 180"):
        gp.probe(gp.load_problem(checkpoint="early", batch_size=8), "lr", batches=180, **options)


def test_a_folder_gives_what_memory_gives(unbroken: xr.Dataset, tmp_path: Path) -> None:
    kept = gp.probe(classifier(), NAMES, batches=other_batches(2), out=tmp_path / "run", **SMALL)
    equal(kept, unbroken)
    xr.testing.assert_identical(gp.open_run(tmp_path / "run"), kept)
    assert {f.name for f in (tmp_path / "run").iterdir()} == {"batches.json", "batch-0", "batch-1", "batch-2"}
    one = gp.open_run(tmp_path / "run" / "batch-1")
    xr.testing.assert_identical(one["dot"], kept["dot"].sel(batch=1, drop=True))
    assert attribute(one, "configuration")["root_seed"] == root_of(0, 1)
    assert kept.attrs["path"] == str(tmp_path / "run")


class Broken(BaseException):
    """A process that dies; nothing may catch it."""


@pytest.mark.parametrize("ending", ["death", "signal"])
def test_what_is_broken_off_goes_on_to_the_same_bits(
    ending: str, unbroken: xr.Dataset, tmp_path: Path
) -> None:
    """In the second batch, after 20 of its 40 copies; what there is can be opened."""
    out = tmp_path / "run"
    asked: dict[str, Any] = {"batches": other_batches(2), "out": out, **SMALL}
    said: list[tuple[int, int, str]] = []

    def press(done: int, total: int, label: str) -> None:
        said.append((done, total, label))
        if done == total // 3 + 20:
            if ending == "death":
                raise Broken
            signal.raise_signal(signal.SIGINT)

    if ending == "death":
        with pytest.raises(Broken):
            gp.probe(classifier(), NAMES, progress=press, **asked)
    else:
        assert gp.probe(classifier(), NAMES, progress=press, **asked).attrs["stopped"] == 1
    assert said[-1][2].startswith("batch 1: ")
    part = gp.open_run(out)
    assert part["batch"].values.tolist() == [0, 1]
    assert {"ok", "missing"} <= set(np.unique(part["status"].sel(batch=1)))
    np.testing.assert_array_equal(part["batch_product"], unbroken["batch_product"].values[:, :2, :2])
    files = {f: f.stat().st_mtime_ns for f in (out / "batch-0" / "units").iterdir()}
    equal(gp.probe(classifier(), NAMES, **asked), unbroken)
    assert all(f.stat().st_mtime_ns == t for f, t in files.items())


def test_estimators_layers_and_batches_can_be_added(unbroken: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), "lr", batches=other_batches(1), layers="last", out=out, **SMALL)
    gp.probe(classifier(), "lr", batches=other_batches(2), layers="last", out=out, **SMALL)
    part = gp.probe(classifier(), NAMES, batches=other_batches(1), out=out, **SMALL)
    assert part["batch"].values.tolist() == [0, 1, 2]
    assert (part["status"].sel(batch=2, estimator="es") == "missing").all()
    assert (part["color"] == unbroken["color"]).all()
    known = part["batch_product"].sel(parameter="first.weight").values
    assert np.isfinite(known[:2, :2]).all()
    assert np.isnan(known[2]).all()
    equal(gp.probe(classifier(), NAMES, batches=other_batches(2), out=out, **SMALL), unbroken)


def test_statistics_and_figures_of_one_batch_say_what_to_do(unbroken: xr.Dataset) -> None:
    for call in (gp.stats.cosine, gp.stats.alignment, gp.stats.coverage, gp.plots.similarity):
        with pytest.raises(
            UsageError, match=r"results of 3 batches; choose one, ds.isel\(batch=0\)"
        ) as caught:
            call(unbroken)
        assert "\n" not in str(caught.value)
    alone = gp.probe(classifier(), NAMES, **SMALL)
    xr.testing.assert_equal(
        gp.stats.cosine(unbroken.isel(batch=0)).drop_vars("batch", errors="ignore"), gp.stats.cosine(alone)
    )


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (3, {}, "nothing is known of the data behind this problem's one batch; give a list of further batches"),
    (1, {}, "batches must be a whole number from 2 on"),
    ("two", {}, "batches must be a whole number from 2 on"),
    ([], {}, "at least one further batch"),
    (other_batches(1, samples=7), {}, "has 7 samples and the problem's own 8"),
    ([torch.zeros(8, 4)], {}, "each batch must be a pair"),
    (
        [(classifier().inputs, classifier().target)],
        {},
        "batches 0 and 1 are the same .0 is the problem's own",
    ),
    ([*other_batches(2), other_batches(1)[0]], {}, "batches 1 and 3 are the same; give each batch once"),
    (failing_batches(), {}, "batches fails at a batch: OSError: disk gone"),
    (other_batches(1), {"copies": 9}, "not a multiple of the block"),
    (other_batches(1), {"layers": "lst"}, "Did you mean 'last'"),
    (other_batches(1), {"estimators": "lrr"}, "Did you mean 'lr'"),
]


@pytest.mark.parametrize(("batches", "options", "says"), REFUSED)
def test_refusals_are_one_sentence_and_write_nothing(
    batches: Any, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    asked = {"estimators": "lr", "batches": batches, "out": tmp_path / "run", **SMALL, **options}
    with pytest.raises(UsageError, match=says) as caught:
        gp.probe(classifier(), **asked)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_other_runs_are_not_touched(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    gp.probe(classifier(), "bp", out=one, **SMALL)
    gp.probe(classifier(), "bp", batches=other_batches(2), out=many, **SMALL)
    before = json.loads((many / "batches.json").read_text())
    with pytest.raises(UsageError, match="the run of a single batch"):
        gp.probe(classifier(), "bp", batches=other_batches(1), out=one, **SMALL)
    with pytest.raises(UsageError, match="holds runs of several batches"):
        gp.probe(classifier(), "bp", out=many, **SMALL)
    with pytest.raises(UsageError, match="with other batches"):
        gp.probe(classifier(), "bp", batches=other_batches(2)[::-1], out=many, **SMALL)
    with pytest.raises(UsageError, match="with other model"):
        gp.probe(classifier(seed=1), "bp", batches=other_batches(2), out=many, **SMALL)
    with pytest.raises(UsageError, match="with other root_seed"):
        gp.probe(classifier(), "bp", batches=other_batches(2), root_seed=3, out=many, **SMALL)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").touch()
    with pytest.raises(UsageError, match="is no folder of batches"):
        gp.probe(classifier(), "bp", batches=other_batches(2), out=tmp_path / "notes", **SMALL)
    assert json.loads((many / "batches.json").read_text()) == before
    (many / "batches.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        gp.open_run(many)


@pytest.mark.parametrize("what", ["cosine", "alignment", "decompose", "plan", "compare", "cost"])
def test_a_path_is_no_result(what: str) -> None:
    """Files are opened by gp.open_run."""
    arguments = {"plan": {"cosine": 0.5}, "compare": {"first": "lr", "second": "es"}}.get(what, {})
    with pytest.raises(UsageError, match="open the run first"):
        getattr(gp.stats, what)("runs/second", **arguments)


def test_each_batch_has_its_own_norm_and_loss(unbroken: xr.Dataset) -> None:
    assert not {"total_reference_sqnorm", "clean_loss"} & set(unbroken.attrs)
    problem = classifier()
    for number, batch in enumerate([(problem.inputs, problem.target), *other_batches(2)]):
        one, alone = unbroken.isel(batch=number), gp.probe(gp.Problem(problem.module, batch), NAMES, **SMALL)
        assert float(one["loss_of_batch"]) == alone.attrs["clean_loss"]
        assert float(one["sqnorm_of_batch"]) == alone.attrs["total_reference_sqnorm"]
        share = gp.stats.coverage(one)
        np.testing.assert_allclose(share, gp.stats.coverage(alone), rtol=1e-12)
        np.testing.assert_allclose(share, 1, rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        '"abc"',
        "[]",
        '{"version": "1"}',
        '{"version": 1, "identity": {}, "batches": ["a", "b"], "products": []}',
        '{"version": 1, "identity": {}, "batches": [], "products": {}}',
        '{"version": 1, "identity": {}, "batches": ["a", "b"], "products": {"w": [[1, "x"], [1, 1]]}}',
        '{"version": 1, "identity": {}, "batches": ["a", "b"], "products": {"w": [[1, 1]]}}',
    ],
)
def test_a_damaged_list_of_batches_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "batches.json").write_text(content)
    with pytest.raises(UsageError, match="is damaged") as caught:
        gp.open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_batches_without_a_run_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "batches.json").write_text(
        '{"version": 1, "identity": {}, "batches": ["a", "b"], "products": {}}'
    )
    with pytest.raises(UsageError, match="no run of any yet"):
        gp.open_run(tmp_path)


def test_what_can_be_read_once_serves_all_batches(unbroken: xr.Dataset) -> None:
    given: dict[str, Any] = {"batches": iter(other_batches(2)), "reference": iter(["bp"])}
    equal(gp.probe(classifier(), iter(NAMES), layers=iter(["first", "last"]), **given, **SMALL), unbroken)


def test_parameters_that_a_batch_lacks_are_booked_on_nothing(tmp_path: Path) -> None:
    gp.probe(classifier(), "lr", batches=other_batches(2), layers="last", out=tmp_path / "run", **SMALL)
    ds = gp.probe(classifier(), "lr", batches=other_batches(1), out=tmp_path / "run", **SMALL)
    booked = ds["booked_on"]
    assert booked.dtype.kind == "U"
    assert (booked.sel(batch=2, parameter=["first.weight", "first.bias"]) == "").all()


class Augmented(torch.utils.data.Dataset):
    """Samples with noise of their own each time that they are read."""

    def __init__(self) -> None:
        self.x, self.y = other_batches(1, samples=40)[0]

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.x[i] + 0.1 * torch.randn(4), int(self.y[i])


@pytest.mark.parametrize("kind", ["number", "list"])
def test_random_data_are_read_alike_each_time(kind: str, tmp_path: Path) -> None:
    data = as_data("augmented", Augmented())

    def make() -> gp.Problem:
        with seeded():
            problem = gp.Problem(classifier().module, data.batch(8))
        problem.origin = Origin(data, 0)
        return problem

    def ask(out: Path | None) -> xr.Dataset:
        torch.randn(7)  # the user's generator is somewhere else
        loader = torch.utils.data.DataLoader(Augmented(), batch_size=8, shuffle=True)
        further, whole = (3, None) if kind == "number" else (loader, loader)
        asked: dict[str, Any] = {"batches": further, "reference": ("bp", "dataset"), "dataset": whole}
        return gp.probe(make(), "lr", out=out, **asked, **SMALL)

    first = ask(tmp_path / "run")
    equal(ask(tmp_path / "run"), first)  # else it refuses: other batches, other data
    equal(ask(None), first)


def test_the_data_are_read_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    true = batches_file.whole_gradient

    def counted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return true(*given)

    monkeypatch.setattr(batches_file, "whole_gradient", counted)
    data = iter(other_batches(4))  # can be read once only
    ds = gp.probe(
        classifier(), "bp", batches=other_batches(2), reference=("bp", "dataset"), dataset=data, **SMALL
    )
    assert calls == 1
    assert np.isfinite(ds["reference_dot"].sel(reference="dataset")).all()


@pytest.mark.parametrize("kept", [False, True])
def test_batches_that_are_done_survive_an_interrupt_before_the_next_begins(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def interrupted(*args: Any) -> list[Any]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt
        return []

    problem = classifier()
    more = [(problem.inputs + k, problem.target) for k in (1, 2)]
    settings: dict[str, Any] = {"copies": 20, "seeds": 2, "batches": more}
    settings |= {"out": tmp_path / "run"} if kept else {}
    with monkeypatch.context() as patch:
        patch.setattr("gradprobe.probes.run.preflight", interrupted)
        ds = gp.probe(problem, ["lr"], **settings)
    assert ds.attrs["stopped"] == 1
    assert list(ds["batch"].values) == [0]
    assert bool(ds["sqnorm"].notnull().all())
    looks = 1
    monkeypatch.setattr("gradprobe.probes.run.preflight", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gp.probe(problem, ["lr"], copies=20, seeds=2, batches=more)
