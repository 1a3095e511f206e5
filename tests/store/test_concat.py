"""Runs side by side: every statistic is that of each run alone, and what cannot be compared is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import gradprobe as gp
from gradprobe.store.along import apart, common_copies, stacked
from gradprobe.store.run_labels import labels_of, read_labels
from tests.problems_tiny import classifier, linear_problem
from tests.stats.batched import make_batches
from tests.synthetic import Truth, make_run

BOTH = ("bp", "smoothed")
QUICK: dict[str, Any] = {"block": 4, "reference": BOTH, "reference_copies": 8}
SCALES = (1.0, 0.5, 2.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints: the second with fewer seeds and another estimator, the third with more copies."""
    place = tmp_path_factory.mktemp("runs")
    asked = [(["lr", "alr", "bp"], 24, 4), (["es", "alr"], 24, 3), (["lr", "alr"], 32, 4)]
    for step, scale, (methods, copies, seeds) in zip((0, 50, 100), SCALES, asked, strict=True):
        out = place / f"step-{step}"
        gp.probe(classifier(scale=scale), methods, copies=copies, seeds=seeds, out=out, **QUICK)
    return [place / f"step-{step}" for step in (0, 50, 100)]


@pytest.fixture(scope="module")
def alone(folders: list[Path]) -> list[xr.Dataset]:
    return [gp.open_run(folder) for folder in folders]


@pytest.fixture(scope="module")
def ds(folders: list[Path]) -> xr.Dataset:
    return gp.concat(folders)


def test_runs_lie_along_checkpoint_by_the_step_in_their_names(
    ds: xr.Dataset, alone: list[xr.Dataset]
) -> None:
    assert ds["checkpoint"].values.tolist() == [0, 50, 100]
    assert ds["estimator"].values.tolist() == ["lr", "alr", "bp", "es"]
    assert (ds.sizes["seed"], ds["copies"].values[-1]) == (4, 32)
    assert (ds["status"].sel(checkpoint=0, estimator="es") == "missing").all()
    assert (ds["status"].sel(checkpoint=50, seed=3) == "missing").all()
    assert ds["dot"].sel(checkpoint=0, copies=32, estimator="lr").isnull().all()
    losses = [run.attrs["clean_loss"] for run in alone]
    np.testing.assert_array_equal(ds["loss_of_run"], losses)
    assert json.loads(ds.attrs["identity"]).keys() == {"batch", "block", "loss", "noise_version", "root_seed"}


def test_each_run_comes_back_as_it_was(ds: xr.Dataset, alone: list[xr.Dataset]) -> None:
    for (_, back), run in zip(apart(ds), alone, strict=True):
        xr.testing.assert_identical(back, run)


def test_a_comparison_is_exported_and_read(ds: xr.Dataset, tmp_path: Path) -> None:
    xr.testing.assert_identical(gp.open_run(gp.export(ds, tmp_path / "x.nc")), ds)


STATISTICS = (
    ("cosine", {}),
    ("cosine", {"over": "model", "scale": "unit-gain"}),
    ("accuracy", {"copies": (8, 24), "over": "parameter"}),
    ("accuracy", {}),
    ("stability", {"around": "law"}),
    ("stability_floor", {}),
    ("alignment", {"over": {"all": "*"}}),
    ("alignment", {"reference": "smoothed"}),
    ("decompose", {}),
    ("cost", {"over": "model"}),
    ("coverage", {}),
    ("goodness_of_fit", {}),
    ("frontier", {}),
)


def same(found: Any, alone: Any, dim: str, label: Any) -> None:
    """What a run alone gives is in the common result, exactly."""
    one = found.sel({dim: label}, drop=True)
    one = one.sel({d: alone[d].values for d in alone.dims if d in alone.coords})
    names = alone.data_vars if isinstance(alone, xr.Dataset) else [None]
    for name in names:
        a, b = (one, alone) if name is None else (one[name], alone[name])
        np.testing.assert_array_equal(a.transpose(*b.dims).values, b.values)


@pytest.mark.parametrize(("name", "options"), STATISTICS, ids=[n for n, _ in STATISTICS])
def test_a_statistic_is_that_of_each_run_alone(
    ds: xr.Dataset, alone: list[xr.Dataset], name: str, options: dict[str, Any]
) -> None:
    statistic = getattr(gp.stats, name)
    try:
        expected = [statistic(run, **options) for run in alone]
    except gp.UsageError as error:
        pytest.fail(str(error))
    found = statistic(ds, **options)
    assert found.sizes["checkpoint"] == 3
    for label, one in zip((0, 50, 100), expected, strict=True):
        same(found, one, "checkpoint", label)


def test_what_is_made_of_statistics_goes_on_along_checkpoints(
    ds: xr.Dataset, alone: list[xr.Dataset]
) -> None:
    law = gp.stats.alignment(ds)
    ahead = gp.stats.predict(law, [10, 1000])
    cosines = gp.stats.bands(gp.stats.cosine(ds))
    both = gp.stats.compare(ds.sel(checkpoint=[0, 100]), "lr", "alr")
    for label, run in zip((0, 50, 100), alone, strict=True):
        same(ahead, gp.stats.predict(gp.stats.alignment(run), [10, 1000]), "checkpoint", label)
        same(cosines, gp.stats.bands(gp.stats.cosine(run)), "checkpoint", label)
        if label != 50:
            same(both, gp.stats.compare(run, "lr", "alr"), "checkpoint", label)
    assert law["state"].sel(checkpoint=0, estimator="es").values.tolist() == ["missing"] * 2
    assert not law["exact"].sel(checkpoint=0, estimator="es").any()


def test_selecting_one_checkpoint_gives_a_run(ds: xr.Dataset, alone: list[xr.Dataset]) -> None:
    one = ds.sel(checkpoint=100)
    law = gp.stats.alignment(one).expand_dims(checkpoint=[100])
    same(law, gp.stats.alignment(alone[2]), "checkpoint", 100)
    xr.testing.assert_equal(
        gp.stats.coverage(one).sel(estimator=["lr", "alr"]),
        gp.stats.coverage(alone[2]),
    )
    assert gp.plots.similarity(one, estimators=["lr"]).gradprobe_caption


def test_a_statistic_that_refuses_one_run_names_it(ds: xr.Dataset) -> None:
    with pytest.raises(gp.UsageError, match="checkpoint 0: unknown estimator 'es'") as caught:
        gp.stats.compare(ds, "alr", "es")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["similarity", "cost", "noise_or_bias", "data_or_copies", "sigma_sweep"])
def test_figures_of_one_run_refuse_several(ds: xr.Dataset, name: str) -> None:
    from gradprobe.plots import PLOTS

    with pytest.raises(gp.UsageError, match=r"ds\.sel\(checkpoint=0\)|^checkpoint 0: "):
        PLOTS.get(name)(ds)


def test_a_plan_is_of_one_run(ds: xr.Dataset) -> None:
    with pytest.raises(gp.UsageError, match=r"ds\.sel\(checkpoint=|^checkpoint 0: "):
        gp.plan(ds, cosine=0.1)


def test_a_seed_on_its_way_does_not_shorten_the_others() -> None:
    """Its copies are in no statistic of its run either."""
    done, begun = (make_run(np.random.default_rng(i), estimators={"lr": Truth()}) for i in (0, 1))
    begun["status"][..., 4] = "partial"
    for name in ("dot", "sqnorm", "block_sqnorm"):
        begun[name] = begun[name].where((begun["seed"] < 4) | (begun["copies"] <= 48))
    assert gp.stats.cosine(begun).sel(seed=4).isnull().all()
    assert common_copies(gp.concat([done, begun], labels=[1, 2])) == 320
    begun["status"][:] = "partial"
    assert common_copies(gp.concat([done, begun], labels=[1, 2])) == 48


def test_common_copies_are_those_that_all_have_reached(ds: xr.Dataset) -> None:
    assert common_copies(ds) == 24
    assert common_copies(ds.sel(checkpoint=[100])) == 32


def linear_loss(scale: float) -> gp.Problem:
    """A loss that is linear in the weights: what a copy says of it is its noise alone, whatever the weights."""
    problem = linear_problem()
    with torch.no_grad():
        for p in problem.module.parameters():
            p.mul_(scale)
    return gp.Problem(problem.module, (problem.inputs, problem.target), lambda out, target: out[:, 0])


def test_noise_is_paired_across_checkpoints_of_equal_root_seed() -> None:
    made = [
        gp.probe(linear_loss(scale), ["es"], copies=8, block=4, seeds=2, root_seed=root, sigma=0.5)
        for scale, root in ((1.0, 0), (0.3, 0), (0.3, 1))
    ]
    directions = [run["sqnorm"].values for run in made]
    np.testing.assert_allclose(directions[0], directions[1], rtol=1e-4)
    assert not np.allclose(directions[0], directions[2], rtol=0.01)


def test_runs_of_other_root_seeds_are_not_paired_and_say_so() -> None:
    other = gp.probe(classifier(scale=0.5), ["lr"], copies=8, block=4, seeds=2, root_seed=1)
    mine = gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=2)
    (note,) = json.loads(gp.concat([mine, other]).attrs["comparison"])
    assert "another root seed (1)" in note
    assert "not paired" in note


def test_a_run_that_was_stopped_and_a_failed_one(folders: list[Path], tmp_path: Path) -> None:
    whole = gp.open_run(folders[0])
    short = tmp_path / "step-50"
    shutil.copytree(folders[2], short)
    units = sorted((short / "units").iterdir())
    units[0].unlink()
    ds = gp.concat([folders[0], short])
    lost = gp.open_run(short)
    assert (lost["status"] == "missing").any()
    for label, run in zip((0, 50), (whole, lost), strict=True):
        same(gp.stats.alignment(ds), gp.stats.alignment(run), "checkpoint", label)
        same(gp.stats.cosine(ds, "model"), gp.stats.cosine(run, "model"), "checkpoint", label)


def test_runs_of_a_single_block() -> None:
    runs = [gp.probe(classifier(scale=s), ["lr"], copies=1, block=1, seeds=2) for s in (1.0, 0.5)]
    ds = gp.concat(runs, labels=["a", "b"])
    same(gp.stats.cosine(ds), gp.stats.cosine(runs[1]), "checkpoint", "b")
    with pytest.raises(gp.UsageError, match="checkpoint 'a': the alignment law needs at least two blocks"):
        gp.stats.alignment(ds)


def test_exports_are_runs(folders: list[Path], alone: list[xr.Dataset], tmp_path: Path) -> None:
    files = [gp.export(run, tmp_path / f"epoch{i}.nc") for i, run in enumerate(alone)]
    ds = gp.concat(files)
    assert ds["checkpoint"].values.tolist() == [0, 1, 2]
    for (_, back), run in zip(apart(ds), alone, strict=True):
        xr.testing.assert_identical(back, run)


def test_runs_of_several_batches() -> None:
    made = [make_batches(np.random.default_rng(i), {"lr": Truth()}, batches=3, noise=0.5).ds for i in (0, 1)]
    ds = gp.concat(made, labels=[1, 2])
    for (_, back), run in zip(apart(ds), made, strict=True):
        xr.testing.assert_identical(back, run)
    found = gp.stats.data_or_copies(ds)
    for label, run in zip((1, 2), made, strict=True):
        same(found, gp.stats.data_or_copies(run), "checkpoint", label)
        same(gp.stats.cosine(ds.isel(batch=0)), gp.stats.cosine(run.isel(batch=0)), "checkpoint", label)
    with pytest.raises(gp.UsageError, match=r"^checkpoint 1: these are results of 3 batches"):
        gp.stats.cosine(ds)
    with pytest.raises(gp.UsageError, match="holds several batches"):
        gp.concat([made[0], made[1].isel(batch=0)])


def test_folders_of_batches_are_compared_batch_by_batch(tmp_path: Path) -> None:
    for step, scale in ((1, 1.0), (2, 0.5)):
        problem = classifier(samples=12, scale=scale)
        cut = [(problem.inputs[i : i + 4], problem.target[i : i + 4]) for i in (0, 4, 8)]
        first = gp.Problem(problem.module, cut[0])
        out = tmp_path / f"step-{step}"
        gp.probe(first, ["lr"], copies=8, block=4, seeds=2, batches=cut[1:], out=out)
    ds = gp.concat([tmp_path / "step-1", tmp_path / "step-2"])
    assert dict(ds.sizes)["batch"] == 3
    assert ds["checkpoint"].values.tolist() == [1, 2]
    marks = json.loads((tmp_path / "step-2" / "batches.json").read_text())
    marks["batches"][1] = "another"
    (tmp_path / "step-2" / "batches.json").write_text(json.dumps(marks))
    with pytest.raises(gp.UsageError, match="different batches"):
        gp.concat([tmp_path / "step-1", tmp_path / "step-2"])


def test_samples_are_kept_where_a_run_has_them() -> None:
    runs = [
        gp.probe(classifier(scale=s), ["lr"], copies=8, block=4, seeds=2, per_sample=own)
        for s, own in ((1.0, True), (0.5, False))
    ]
    ds = gp.concat(runs, labels=["with", "without"])
    for (_, back), run in zip(apart(ds), runs, strict=True):
        xr.testing.assert_identical(back, run)


# sigma


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return gp.sigma_sweep(classifier(), ["lr", "es", "alr"], (0.1, 0.01), copies=16, block=4, seeds=3)


def test_one_sweep_lies_along_sigma(sweep: xr.Dataset) -> None:
    ds = gp.concat([sweep], "sigma")
    assert ds["sigma"].values.tolist() == [0.01, 0.1]
    assert ds["estimator"].values.tolist() == ["lr", "es", "alr"]
    for name in ("cosine", "alignment", "decompose", "coverage"):
        found, whole = (getattr(gp.stats, name)(x) for x in (ds, sweep))
        for sigma in (0.01, 0.1):
            for method in ("lr", "es", "alr"):
                label = method if f"{method}(sigma={sigma:g})" not in sweep["estimator"].values else None
                at = label or f"{method}(sigma={sigma:g})"
                one, other = found.sel(sigma=sigma, estimator=method), whole.sel(estimator=at)
                for mine, theirs in zip(_arrays(one), _arrays(other), strict=True):
                    np.testing.assert_array_equal(mine, theirs)
    assert gp.stats.cosine(ds.sel(sigma=0.1)).sizes["estimator"] == 3


def test_runs_along_sigma_have_the_window_of_one_sweep(sweep: xr.Dataset) -> None:
    ds = gp.concat([sweep], "sigma")
    found, whole = (gp.stats.against_sigma(x) for x in (ds, sweep))
    for name in ("value", "excess", "verdict", "best", "window_low"):
        expected = whole[name].sel(estimator=found["estimator"].values)
        np.testing.assert_array_equal(found[name].transpose(*expected.dims), expected)
    figures = [gp.plots.sigma_sweep(x).gradprobe_record["panels"] for x in (ds, sweep)]
    assert sorted(map(str, figures[0][0]["methods"])) == sorted(map(str, figures[1][0]["methods"]))


def _arrays(found: Any) -> list[np.ndarray]:
    return [found.values] if isinstance(found, xr.DataArray) else [v.values for v in found.data_vars.values()]


def test_runs_at_several_sigmas_lie_along_sigma() -> None:
    runs = [
        gp.probe(classifier(), ["lr", "bp"], copies=8, block=4, seeds=3, sigma=sigma) for sigma in (0.5, 0.05)
    ]
    ds = gp.concat(runs, "sigma")
    assert ds["sigma"].values.tolist() == [0.05, 0.5]
    assert (ds["status"].sel(estimator="bp") == "ok").all()
    np.testing.assert_array_equal(
        gp.stats.cosine(ds).sel(sigma=0.5, estimator="lr"),
        gp.stats.cosine(runs[0]).sel(estimator="lr(sigma=0.5)"),
    )
    with pytest.raises(gp.UsageError, match="same weights on the same batch.*dim='sigma'"):
        gp.concat(runs)
    with pytest.raises(gp.UsageError, match="leave labels out"):
        gp.concat(runs, "sigma", labels=["a", "b"])
    with pytest.raises(gp.UsageError, match="other weights"):
        gp.concat([runs[0], gp.probe(classifier(scale=2), ["lr"], copies=8, block=4, seeds=3)], "sigma")
    with pytest.raises(gp.UsageError, match=r"all runs are of one sigma \(0\.5\)"):
        gp.concat(runs[:1], "sigma")
    with pytest.raises(gp.UsageError, match=r"both have sigma=0\.5"):
        gp.concat(
            [runs[0], runs[1], gp.probe(classifier(), ["es"], copies=8, block=4, seeds=3, sigma=0.5)], "sigma"
        )


# refusals


def wider() -> gp.Problem:
    torch.manual_seed(0)
    module = nn.Sequential()
    module.add_module("first", nn.Linear(4, 7))
    module.add_module("last", nn.Linear(7, 3))
    problem = classifier()
    return gp.Problem(module, (problem.inputs, problem.target))


def probed(problem: gp.Problem, **options: Any) -> xr.Dataset:
    return gp.probe(problem, ["lr"], **{"copies": 8, "block": 4, "seeds": 2} | options)


def test_what_cannot_be_compared_is_refused_in_one_sentence(folders: list[Path], tmp_path: Path) -> None:
    first, late = probed(classifier()), probed(classifier(scale=0.5))
    small = classifier(samples=4, scale=0.5)
    path = gp.descend("beale", estimators=["bp"], start=(1.0, 1.0), steps=2, lr=1e-4, seeds=1)
    cases: list[tuple[list[Any], dict[str, Any], str]] = [
        ([first], {}, "at least two runs"),
        ([folders[0], str(folders[0])], {}, "given twice"),
        ([first, first], {}, "given twice"),
        ([first, probed(classifier())], {}, "same weights on the same batch"),
        ([first, probed(wider())], {}, "another layer 'first'"),
        ([first, probed(linear_problem())], {}, "other layers"),
        ([first, probed(classifier(scale=0.5), layers=["last"])], {}, "other layers \\(no 'first'\\)"),
        ([first, probed(classifier(scale=0.5), block=8)], {}, "another block \\(8 copies, not 4\\)"),
        ([first, probed(small)], {}, "different batches"),
        ([first, probed(small)], {"other_batches": True}, "another size of batch \\(4, not 8\\)"),
        ([first, late], {"labels": ["a"]}, "2 runs and 1 labels"),
        ([first, late], {"labels": ["a", "a"]}, "there twice"),
        ([first, late], {"labels": ["a", 1]}, "not both"),
        ([first, late], {"labels": "ab"}, "a list of 2"),
        ([first, late], {"dim": "epoch"}, "unknown dim 'epoch'"),
        ([first, path], {}, "no results of gp.probe"),
        ([first, tmp_path], {}, "is not a gradprobe run"),
        ([first, 3], {}, "run 2 is neither"),
        ([first, late.isel(seed=0)], {}, "no dimension 'seed'"),
        ([first, gp.concat([first, late], labels=[1, 2])], {}, "a comparison already"),
        (["ab"], {}, "not a gradprobe run|No such"),
    ]
    for runs, options, words in cases:
        with pytest.raises(gp.UsageError, match=words) as caught:
            gp.concat(runs, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(gp.UsageError, match="a list of runs"):
        gp.concat(first)


def test_another_loss_is_refused() -> None:
    problem = linear_problem()
    other = gp.Problem(linear_problem().module, (problem.inputs, problem.target), "l1")
    with torch.no_grad():
        next(other.module.parameters()).mul_(0.5)
    with pytest.raises(gp.UsageError, match="another loss"):
        gp.concat([probed(problem), probed(other)])


def test_other_batches_are_allowed_if_that_is_said() -> None:
    runs = [probed(classifier()), probed(classifier(seed=1))]
    ds = gp.concat(runs, labels=[1, 2], other_batches=True)
    assert "the batch's" in json.loads(ds.attrs["comparison"])[0]


def test_references_that_not_all_have_are_left_out() -> None:
    runs = [probed(classifier(), reference=BOTH, reference_copies=8), probed(classifier(scale=0.5))]
    ds = gp.concat(runs, labels=[1, 2])
    assert ds["reference"].values.tolist() == ["bp"]
    assert "'smoothed' is not in all runs" in json.loads(ds.attrs["comparison"])[0]
    same(gp.stats.alignment(ds), gp.stats.alignment(runs[0]), "checkpoint", 1)
    with pytest.raises(gp.UsageError, match="shares no reference"):
        gp.concat([runs[0].sel(reference=["smoothed"]), runs[1]])


# labels


def known_as(*names: str) -> list[Any]:
    runs = [xr.Dataset(attrs={"configuration": json.dumps({"checkpoint": name})}) for name in names]
    return labels_of(runs, [""] * len(names))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("early", "trained"), ["early", "trained"]),
        (("run/epoch-3.pt", "run/epoch-10.pt"), [3, 10]),
        (("v2/step_1000.safetensors", "v2/step_0.safetensors"), [1000, 0]),
        (("out/checkpoint-500/model.safetensors", "out/checkpoint-50/model.safetensors"), [500, 50]),
        (("e0.5.pt", "e1.5.pt"), [0.5, 1.5]),
        (("a1-b2.pt", "a2-b3.pt"), ["a1-b2", "a2-b3"]),
        (("x/best.pt", "y/best.pt"), ["x/best", "y/best"]),
        (("<b>.pt", "$x$.pt"), ["<b>", "$x$"]),
        (("same.pt", "same.pt"), ["same", "same (2)"]),
        (("", ""), ["run 1", "run 2"]),
    ],
)
def test_labels_are_what_runs_know(names: tuple[str, ...], labels: list[Any]) -> None:
    assert known_as(*names) == labels


def test_labels_on_a_line() -> None:
    assert read_labels("0, 3,10") == [0, 3, 10]
    assert read_labels("0, last") == ["0", "last"]


# putting together


def test_what_one_part_lacks_is_filled_by_its_kind() -> None:
    parts = [
        xr.Dataset(
            {
                "v": ("x", [1.0]),
                "n": ("x", [3]),
                "b": ("x", [True]),
                "state": ("x", ["ok"]),
                "w": ("x", ["word"]),
            },
            {"x": [label], "about": ("x", [f"of {label}"])},
        )
        for label in ("a", "b")
    ]
    found = stacked(parts, "checkpoint", [1, 2])
    lacking = found.sel(checkpoint=1, x="b")
    assert np.isnan(lacking["v"])
    assert [lacking[k].item() for k in ("n", "b", "state", "w")] == [0, False, "missing", ""]
    assert found["about"].values.tolist() == ["of a", "of b"]
    assert found["n"].dtype.kind == "i"
    assert found["b"].dtype.kind == "b"


def test_synthetic_runs_that_do_not_know_their_batch_are_compared_with_a_note() -> None:
    runs = [make_run(np.random.default_rng(i)) for i in (0, 1)]
    (note,) = json.loads(gp.concat(runs).attrs["comparison"])
    assert "which batch" in note
