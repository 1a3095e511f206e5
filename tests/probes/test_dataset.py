"""The reference "dataset": the gradient of the mean loss over all data, against autograd on all of them at once."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.estimators.base import make_all
from gradprobe.probes.checks import layers_of
from gradprobe.probes.dataset import whole_gradient
from gradprobe.probes.parcel import pack, unpack
from gradprobe.probes.plan import make_plan
from gradprobe.probes.request import backprop
from gradprobe.probes.settings import Settings
from gradprobe.probes.unit import compute
from gradprobe.problems.data import Data
from gradprobe.problems.load import load_data
from gradprobe.problems.origin import Origin
from gradprobe.problems.sources.python import as_data
from gradprobe.store.assemble import attribute
from tests.problems_tiny import classifier
from tests.store.test_run import equal

SMALL: dict[str, Any] = {"copies": 8, "block": 4, "seeds": 2}
BOTH = ("bp", "dataset")
N = 29
"""Samples: no multiple of the batch of 8."""


def data(seed: int = 1, samples: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 4, generator=generator), torch.randint(0, 3, (samples,), generator=generator)


def naive(
    problem: gp.Problem, inputs: Any, target: torch.Tensor, loss=F.cross_entropy
) -> dict[str, np.ndarray]:
    """Gradient of the mean loss over everything at once, in float64."""
    module = copy.deepcopy(problem.module).double().eval()
    loss(module(inputs.double()), target).backward()
    return {name: p.grad.numpy() for name, p in module.named_parameters()}


def assert_holds(ds: xr.Dataset, problem: gp.Problem, whole: dict[str, np.ndarray], names: list[str]) -> None:
    """Norms and products are those of the naive gradient, for every estimator's own mean direction."""
    own = gp.estimate(problem, "bp", copies=1)
    for p in ds["parameter"].values:
        cells = ds.sel(parameter=p, reference="dataset")
        assert np.allclose(cells["reference_sqnorm"], (whole[p] ** 2).sum(), rtol=1e-5)
        assert np.allclose(
            cells["reference_dot"], (own[p].double().numpy() * whole[p]).sum(), rtol=1e-5, atol=1e-9
        )
        assert (cells["reference_blocks"] == 1).all()
        for name in names:
            found = gp.estimate(problem, name, copies=8, block=4, seed=1, layers=None)[p].double().numpy()
            value = float(cells["dot"].sel(estimator=name, seed=1, copies=8))
            assert value == pytest.approx((found * whole[p]).sum(), rel=1e-4, abs=1e-6)


def test_it_is_the_gradient_over_all_data() -> None:
    problem, whole = classifier(), data()
    names = ["lr", "es", "lr(injection=joint)", "bp"]
    ds = gp.probe(problem, names, reference="dataset", dataset=whole, **SMALL)
    assert list(ds["reference"].values) == ["bp", "dataset"]
    expected = naive(problem, *whole)
    assert_holds(ds, problem, expected, names)
    own = gp.estimate(problem, "bp", copies=1)
    dot = sum((own[p].double().numpy() * g).sum() for p, g in expected.items())
    norms = [
        np.sqrt(sum((x**2).sum() for x in many))
        for many in ([own[p].double().numpy() for p in own], expected.values())
    ]
    cosine = gp.stats.cosine(ds, "model", reference="dataset").sel(estimator="bp")
    assert np.allclose(cosine, dot / norms[0] / norms[1], rtol=1e-5)
    about = attribute(ds, "dataset")
    assert about["samples"] == N
    module = copy.deepcopy(problem.module).double().requires_grad_(False)
    assert about["loss"] == pytest.approx(
        float(F.cross_entropy(module(whole[0].double()), whole[1])), rel=1e-6
    )


def batches_of(whole: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(whole[0][a:b], whole[1][a:b]) for a, b in ((0, 3), (3, 20), (20, N))]


@pytest.mark.parametrize(
    "form",
    [
        batches_of,
        lambda whole: iter(batches_of(whole)),
        lambda whole: DataLoader(TensorDataset(*whole), batch_size=5, shuffle=True),
    ],
    ids=["list", "iterator", "shuffled loader"],
)
def test_it_does_not_matter_how_the_data_are_cut(form: Callable[[Any], Any]) -> None:
    problem, whole = classifier(), data()
    one, other = (gp.probe(problem, "lr", reference=BOTH, dataset=d, **SMALL) for d in (whole, form(whole)))
    xr.testing.assert_allclose(one["dot"], other["dot"], rtol=1e-5, atol=1e-7)
    assert attribute(one, "dataset")["digest"] == attribute(other, "dataset")["digest"]
    twice = gp.probe(
        problem, "lr", reference=BOTH, dataset=[*batches_of(whole), batches_of(whole)[0]], **SMALL
    )
    assert attribute(one, "dataset")["digest"] != attribute(twice, "dataset")["digest"]


def test_a_loaded_problem_knows_its_split() -> None:
    problem = gp.load_problem(checkpoint="early", batch_size=100)
    split = load_data("digits", "train", {})
    ds = gp.probe(problem, "bp", reference=BOTH, layers=["fc", "conv1"])
    expected = naive(problem, split.inputs, split.targets)
    assert_holds(ds, problem, expected, [])
    assert attribute(ds, "dataset")["samples"] == len(split)


def test_a_batch_of_one_sample_is_enough() -> None:
    whole = data()
    problem = gp.Problem(classifier().module, (whole[0][:1], whole[1][:1]))
    ds = gp.probe(problem, "lr", reference=BOTH, dataset=whole, **SMALL)
    assert_holds(ds, problem, naive(problem, *whole), ["lr"])


class Rows(IterableDataset):  # type: ignore[type-arg]  # any sample
    """Samples one by one, counted."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        for x, y in zip(*data(), strict=True):
            self.read += 1
            yield x, int(y)


@pytest.mark.parametrize("batches", [False, True], ids=["samples", "loader"])
def test_a_stream_is_read_in_one_pass(batches: bool) -> None:
    rows, whole = Rows(), data()
    source = as_data("rows", DataLoader(rows, batch_size=5) if batches else rows)
    problem = gp.Problem(classifier().module, source.batch(8))
    problem.origin = Origin(source, 0)
    rows.read = 0
    ds = gp.probe(problem, "lr", reference=BOTH, **SMALL)
    assert rows.read == N
    assert_holds(ds, problem, naive(problem, *whole), ["lr"])
    assert attribute(ds, "dataset")["samples"] == N


def test_fewer_copies_than_the_run_has_are_refused_for_a_new_reference(tmp_path: Path) -> None:
    """They would be computed and not shown: there is a unit with more copies without it."""
    out, more = tmp_path / "run", SMALL | {"copies": 2 * SMALL["copies"]}
    gp.probe(classifier(), "lr", out=out, **more)
    before = (out / "run.json").read_text()
    for asked in ({"reference": BOTH, "dataset": data()}, {"reference": ("bp", "smoothed")}):
        with pytest.raises(
            UsageError, match=f"holds {more['copies']} copies without the reference"
        ) as caught:
            gp.probe(classifier(), "lr", out=out, **asked, **SMALL)
        assert "\n" not in str(caught.value)
    assert (out / "run.json").read_text() == before
    ds = gp.probe(classifier(), ["lr", "es"], out=out, reference=BOTH, dataset=data(), **more)
    assert np.isfinite(ds["dot"].sel(reference="dataset")).all()


class TimeMajor(nn.Module):
    """Inputs ``[time, samples, features]``, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).sum(0).tanh()


@pytest.mark.parametrize("scalar", [False, True])
def test_time_major_inputs_and_scalar_losses(scalar: bool) -> None:
    torch.manual_seed(1)
    x, y = torch.randn(5, 13, 3), torch.randn(13, 2)
    if scalar:
        x = x.transpose(0, 1)[:, 0]  # a scalar says nothing of axes: samples come first
        problem = gp.Problem(nn.Linear(3, 2), (x[:4], y[:4]), lambda out, t: ((out - t) ** 2).mean())
        expected = naive(problem, x, y.double(), F.mse_loss)
        whole: Any = (x, y)
    else:
        problem = gp.Problem(TimeMajor(), ({"x": x[:, :4]}, y[:4]), "mse", batch_axis=1)
        module = copy.deepcopy(problem.module).double()
        F.mse_loss(module(x.double()), y.double()).backward()
        expected = {name: p.grad.numpy() for name, p in module.named_parameters()}
        whole = ({"x": x}, y)
    ds = gp.probe(problem, "es", reference=BOTH, dataset=whole, **SMALL)
    assert_holds(ds, problem, expected, ["es"])
    assert attribute(ds, "dataset")["samples"] == 13


def test_with_a_smoothed_reference_in_either_order(tmp_path: Path) -> None:
    whole, three = data(), ("bp", "smoothed", "dataset")
    both = {"reference_copies": 8, "dataset": whole}
    at_once = gp.probe(classifier(), ["lr", "bp"], reference=three, **both, **SMALL)
    gp.probe(classifier(), ["lr", "bp"], reference=BOTH, dataset=whole, out=tmp_path / "run", **SMALL)
    later = gp.probe(classifier(), ["lr", "bp"], reference="smoothed", out=tmp_path / "run", **both, **SMALL)
    assert list(later["reference"].values) == ["bp", "dataset", "smoothed"]
    for name in ("dot", "reference_sqnorm", "reference_dot", "reference_blocks"):
        xr.testing.assert_allclose(later[name].sel(reference=list(three)), at_once[name])
    assert later["dot"].sel(reference="smoothed", estimator="bp").isnull().all()


def test_layers_that_an_estimator_refuses_keep_their_norm() -> None:
    problem, whole = classifier(), data()
    ds = gp.probe(problem, ["lr", "bp"], reference=BOTH, dataset=whole, layers="last", **SMALL)
    assert np.isfinite(ds["reference_dot"]).all()
    assert set(ds["parameter"].values) == {"last.weight", "last.bias"}
    more = gp.probe(problem, ["lr"], reference=BOTH, dataset=whole, **SMALL)
    ratio = gp.stats.cosine(more, "model", "dataset") ** 2
    assert (ratio <= 1).all()


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = data()
    asked: dict[str, Any] = {"reference": BOTH, "dataset": whole, **SMALL}

    def press(done: int, total: int, label: str) -> None:
        if done == 12:
            signal.raise_signal(signal.SIGINT)

    part = gp.probe(classifier(), ["lr", "es"], out=tmp_path / "run", progress=press, **asked)
    assert part.attrs["stopped"] == 1
    resumed = gp.probe(classifier(), ["lr", "es"], out=tmp_path / "run", **asked)
    equal(resumed, gp.probe(classifier(), ["lr", "es"], **asked))
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    with pytest.raises(UsageError, match="reference over other data"):
        gp.probe(classifier(), ["alr"], out=tmp_path / "run", **asked | {"dataset": data(seed=2)})
    with pytest.raises(UsageError, match="give dataset="):
        gp.probe(classifier(), ["alr"], out=tmp_path / "run", **SMALL)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == before


def test_workers_get_it_too() -> None:
    problem = classifier()
    layers = layers_of(problem)
    with problem.frozen():
        known = {"bp": backprop(problem, layers), "dataset": whole_gradient(problem, layers, data()).gradient}
    settings = Settings(block=4, copies=8, references=BOTH)
    (task, *_) = make_plan(problem, layers, make_all("lr"), [0]).tasks
    there, sent = unpack(pack(problem, known, [task]).data)
    here, elsewhere = compute(problem, task, known, settings), compute(there, task, sent, settings)
    assert elsewhere.references == BOTH
    for name in ("dot", "reference_sqnorm", "reference_dot"):
        assert np.array_equal(getattr(here, name), getattr(elsewhere, name))
    assert list(sent) == ["bp", "dataset"]


def test_progress_says_how_far_the_data_are() -> None:
    said: list[tuple[int, int, str]] = []
    gp.probe(
        classifier(),
        "lr",
        reference=BOTH,
        dataset=data(),
        progress=lambda *given: said.append(given),
        **SMALL,
    )
    reading = [given for given in said if given[1] == 0]
    assert [given[2] for given in reading] == [
        f"gradient over the data: {n} of {N} samples" for n in (8, 16, 24, N)
    ]
    assert said[len(reading) :]
    assert all(total == 32 for _, total, _ in said[len(reading) :])


def coupled() -> gp.Problem:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).train()
    return gp.Problem(net, data(0, 8), mode="as-is")


def summed() -> gp.Problem:
    return gp.Problem(nn.Linear(4, 3), data(0, 8), lambda out, y: F.cross_entropy(out, y, reduction="sum"))


def summed_alone() -> gp.Problem:
    return gp.Problem(nn.Linear(4, 3), data(0, 1), lambda out, y: F.cross_entropy(out, y, reduction="sum"))


def failing() -> Iterator[Any]:
    yield data(1, 8)
    raise OSError("disk\ngone")


def weighted() -> gp.Problem:
    return gp.Problem(nn.Linear(4, 3), data(0, 8), weights=torch.linspace(0, 1, 8))


def broken_batches() -> list[Any]:
    return [data(1, 8), (torch.zeros(8, 7), torch.zeros(8, dtype=torch.long))]


REFUSED = [
    (classifier, {}, "give dataset="),
    (lambda: gp.find_function("beale").problem(), {}, "give dataset="),
    (classifier, {"dataset": Data(*data(), whole=True)}, "cannot be divided"),
    (coupled, {"dataset": data()}, "not the mean over samples"),
    (summed, {"dataset": data()}, "not the mean over samples"),
    (summed_alone, {"dataset": data()}, "not the mean over samples .the batch's one sample"),
    (classifier, {"dataset": failing()}, "dataset fails at a batch: OSError: disk gone"),
    (weighted, {"dataset": data()}, "leave weights= out"),
    (classifier, {"dataset": TensorDataset(*data())}, "a DataLoader, a list of batches"),
    (classifier, {"dataset": 3}, "not a int"),
    (classifier, {"dataset": [torch.zeros(8, 4)]}, "each batch must be a pair"),
    (classifier, {"dataset": broken_batches()}, "fails on a batch of the data"),
    (classifier, {"dataset": data(0, 8)}, "needs more"),
    (classifier, {"dataset": data(), "reference": "bp"}, "add reference="),
    (classifier, {"dataset": (data()[0] * torch.nan, data()[1])}, "not finite"),
]


@pytest.mark.parametrize(("make", "options", "says"), REFUSED)
def test_refusals_are_one_sentence_and_write_nothing(
    make: Callable[[], gp.Problem], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    problem = make()
    with pytest.raises(UsageError, match=says) as caught:
        gp.probe(problem, "es", **{"reference": BOTH, "out": tmp_path / "run", **SMALL, **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
