"""What a copy costs, and which method is best at which cost, against block vectors and hand-booked units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.store.assemble import assemble
from gradprobe.store.schema import LayerInfo, Unit, UnitKey, View
from tests.stats.brute import slow_alignment, slow_jackknife, triple
from tests.synthetic import Truth, make_run, make_world

LAYERS = {"a": ("a.weight", "a.bias"), "b": ("b.weight",), "c": ("c.weight", "c.bias")}
BLOCK = 4


def unit(
    source: str,
    layer: str | None,
    seed: int,
    served: Sequence[str],
    cost: tuple[float, float, float],
    blocks: int = 3,
    status: str = "ok",
) -> Unit:
    """A unit with costs of one copy (or, of a single block, of one evaluation): forwards, equivalents, seconds."""
    parameters = tuple(p for name in served for p in LAYERS[name])
    count = len(parameters)
    n = BLOCK * np.arange(1.0, blocks + 1) if blocks > 1 else np.ones(1)
    ones = np.ones((1, count))
    return Unit(
        key=UnitKey(source, layer, seed),
        readouts=("r",),
        parameters=parameters,
        block=BLOCK,
        references=("bp",),
        dot=np.ones((1, 1, count, blocks)),
        sqnorm=np.ones((1, count, blocks)) + 1 / n,
        block_sqnorm=3 * np.ones((1, count, blocks)),
        reference_sqnorm=ones,
        reference_block_sqnorm=ones,
        reference_blocks=ones,
        reference_dot=ones,
        forwards=cost[0] * n,
        equivalents=cost[1] * n,
        nonfinite=0 * n,
        seconds=cost[2] * n[-1],
        status=status,
    )


def run(
    views: Mapping[str, Mapping[str, str]], units: Sequence[Unit], seeds: int = 3, **fixed: bool
) -> xr.Dataset:
    """A run whose views name the source of each layer; layers that are left out are refused."""
    infos = [LayerInfo(k, "Linear", p, ((2,),) * len(p), 1) for k, p in LAYERS.items()]
    made = [
        View(
            label,
            {k: (source, "r") for k, source in sources.items()},
            {k: "no" for k in LAYERS if k not in sources},
            stochastic=not fixed.get(label, False),
        )
        for label, sources in views.items()
    ]
    return assemble(infos, made, units, list(range(seeds)), BLOCK, ("bp",))


def alone(source: str, prices: Mapping[str, tuple[float, float, float]], seeds: int = 3) -> list[Unit]:
    """Layer-wise units."""
    return [unit(source, k, s, [k], cost) for s in range(seeds) for k, cost in prices.items()]


def everywhere(source: str) -> dict[str, str]:
    return dict.fromkeys(LAYERS, source)


LR = {"a": (1.0, 0.9, 0.01), "b": (1.0, 0.5, 0.02), "c": (1.0, 0.1, 0.03)}
ES = {"a": (1.0, 1.0, 0.04), "b": (1.0, 0.8, 0.05), "c": (1.0, 0.4, 0.06)}


def test_layers_and_model_under_every_kind_of_unit() -> None:
    joint = [unit("joint", None, s, list(LAYERS), (1.0, 0.9, 0.5)) for s in range(3)]
    backprop = [unit("bp", None, 0, list(LAYERS), (1.0, 3.0, 2.0), blocks=1)]
    views = {
        "lr": everywhere("lr"),
        "hybrid": {"a": "es", "b": "lr", "c": "lr"},
        "joint": everywhere("joint"),
        "bp": everywhere("bp"),
        "some": {"b": "lr"},
        "mixed": {"a": "joint", "b": "es", "c": "joint"},
    }
    ds = run(views, [*alone("lr", LR), *alone("es", ES), *joint, *backprop], bp=True)
    found, model = stats.cost(ds), stats.cost(ds, over="model")
    for i, kind in enumerate(("forwards", "equivalents", "seconds")):
        lr, es = ([prices[k][i] for k in LAYERS] for prices in (LR, ES))
        one, whole = (1.0, 0.9, 0.5)[i], (1.0, 3.0, 2.0)[i]
        expected = {
            "lr": lr,
            "hybrid": [es[0], *lr[1:]],
            "joint": [one] * 3,
            "bp": [whole] * 3,
            "some": [np.nan, lr[1], np.nan],
            "mixed": [one, es[1], one],
        }
        totals = [sum(lr), es[0] + sum(lr[1:]), one, whole, lr[1], one + es[1]]
        assert found[kind].dims == ("estimator", "layer")
        for label, row in expected.items():
            assert np.allclose(found[kind].sel(estimator=label), row, equal_nan=True, rtol=1e-12)
        assert model[kind].dims == ("estimator",)
        assert np.allclose(model[kind], totals, rtol=1e-12)
    shared = {e: found["shared"].sel(estimator=e).values.tolist() for e in views}
    assert shared["lr"] == shared["hybrid"] == shared["some"] == [False] * 3
    assert shared["joint"] == shared["bp"] == [True] * 3
    assert shared["mixed"] == [True, False, True]
    assert not model["shared"].any()


def test_seeds_that_are_slow_failed_or_missing_do_not_decide() -> None:
    units = [u for u in alone("lr", LR, seeds=5) if not (u.key.seed == 3 and u.key.layer == "b")]
    for u in units:
        if u.key.seed == 0:
            u.seconds *= 100  # tracing, say
    units = [u for u in units if u.key.seed != 4] + [
        unit("lr", "a", 4, ["a"], (7.0, 7.0, 7.0), status="failed")
    ]
    found = stats.cost(run({"lr": everywhere("lr")}, units, seeds=5))
    assert np.allclose(found["seconds"].isel(estimator=0), [0.01, 0.02, 0.03])
    assert np.allclose(found["equivalents"].isel(estimator=0), [0.9, 0.5, 0.1])
    gone = stats.cost(run({"lr": everywhere("lr")}, [u for u in units if u.key.layer != "b"], seeds=5))
    assert np.isnan(gone["forwards"].sel(layer="b")).all()
    model = stats.cost(
        run({"lr": everywhere("lr")}, [u for u in units if u.key.layer != "b"], seeds=5), over="model"
    )
    assert np.isnan(model["seconds"]).all()


def test_a_stopped_unit_costs_what_its_copies_did() -> None:
    units = alone("lr", LR) + [unit("lr", "a", 3, ["a"], (1.0, 0.9, 0.01), blocks=2, status="partial")]
    ds = run({"lr": everywhere("lr")}, units, seeds=4)
    assert np.allclose(stats.cost(ds)["seconds"].isel(estimator=0), [0.01, 0.02, 0.03])


def test_results_that_do_not_say_where_units_are_booked() -> None:
    joint = [unit("joint", None, s, list(LAYERS), (1.0, 0.9, 0.5)) for s in range(3)]
    views = {"lr": everywhere("lr"), "joint": everywhere("joint"), "some": {"b": "lr", "c": "lr"}}
    ds = run(views, [*alone("lr", LR), *joint])
    for over in stats.cost(ds), stats.cost(ds, over="model"):
        kept = stats.cost(ds.drop_vars("booked_on"), over=over.attrs["over"])
        xr.testing.assert_identical(kept, over)


def test_a_selection_of_layers_keeps_what_it_can_tell() -> None:
    joint = [unit("joint", None, s, list(LAYERS), (1.0, 0.9, 0.5)) for s in range(3)]
    ds = run({"lr": everywhere("lr"), "joint": everywhere("joint")}, [*alone("lr", LR), *joint])
    part = stats.cost(ds.sel(parameter=["b.weight"]))
    assert np.allclose(part["equivalents"].sel(estimator="lr"), [0.5])
    assert np.isnan(part["equivalents"].sel(estimator="joint")).all()  # booked on a layer that is gone


# --- the frontier

TRUTHS = {
    "cheap": Truth(rho=0.6, kappa=20.0),
    "dear": Truth(rho=1.0, kappa=300.0),
    "worse": Truth(rho=0.5, kappa=400.0),
    "bp": Truth(stochastic=False),
}


def priced(ds: xr.Dataset, prices: Mapping[str, float]) -> xr.Dataset:
    """The run with other equivalents for each copy."""
    scale = xr.DataArray([prices[str(e)] for e in ds["estimator"].values], dims="estimator")
    return ds.assign(equivalents=ds["equivalents"] * scale)


PRICES = {"cheap": 0.3, "dear": 1.0, "worse": 0.3, "bp": 3 / 16}


def synthetic(seeds: int = 5, blocks: int = 40) -> tuple[xr.Dataset, object]:
    rng = np.random.default_rng(3)
    world = make_world(rng, {"fc": 400}, TRUTHS, seeds, blocks, 16)
    return priced(make_run(rng, estimators=TRUTHS, seeds=seeds, blocks=blocks, world=world), PRICES), world


def slow_law(world: object, label: str, seeds: int) -> tuple[float, float]:
    """1/ceiling^2 and price in copies, from the block vectors."""
    blocks = [world.blocks[label, s]["fc"] for s in range(seeds)]
    found = slow_alignment(blocks, world.g["fc"], 16)
    return found["ceiling"] ** -2, found["price"]


@pytest.mark.parametrize("over", ["layer", "model"])
def test_the_frontier_is_the_best_law_at_every_cost(over: str) -> None:
    ds, world = synthetic()
    ds = ds.assign(
        equivalents=ds["equivalents"].where(ds["estimator"] != "bp", 3.0 * (ds["parameter"] == "fc.weight"))
    )
    costs = np.geomspace(0.1, 1e4, 41)
    found = stats.frontier(ds, costs=costs, over=over)
    found = found.isel(layer=0) if over == "layer" else found
    names = ["cheap", "dear", "worse"]
    lines = {e: slow_law(world, e, 5) for e in names}

    def cosine(label: str, c: float) -> float:
        n = c / PRICES[label]
        return (lines[label][0] + lines[label][1] / n) ** -0.5 if n >= 1 else np.nan

    for c in costs:
        at = found.sel(cost=c)
        values = {e: cosine(e, c) for e in names}
        for e in names:
            assert float(at.cosine.sel(estimator=e)) == pytest.approx(values[e], nan_ok=True)
            n = c / PRICES[e]
            assert float(at.copies.sel(estimator=e)) == pytest.approx(n if n >= 1 else np.nan, nan_ok=True)
            assert bool(at.beyond.sel(estimator=e)) == (n > 640)
        there = {e: v for e, v in values.items() if np.isfinite(v)}
        order = [*sorted(there, key=there.__getitem__, reverse=True), "", ""]
        assert (str(at.best.values), str(at.runner_up.values)) == tuple(order[:2])
        assert float(at.cosine.sel(estimator="bp")) == (
            pytest.approx(1.0) if c >= 3 else pytest.approx(np.nan, nan_ok=True)
        )
    assert found.race.values.tolist() == [True, True, True, False]
    lines = {e: (max(a, 1.0), b) for e, (a, b) in lines.items()}  # a ceiling above 1 is noise
    crossing = brentq(lambda c: cosine("cheap", c) - cosine("dear", c), 1.0, 1e4)
    for e in ("cheap", "dear", "worse"):
        assert float(found.copy_cost.sel(estimator=e)) == pytest.approx(PRICES[e])
    assert float(found.leads_from.sel(estimator="dear")) == pytest.approx(crossing, rel=1e-9)
    assert float(found.leads_to.sel(estimator="cheap")) == pytest.approx(crossing, rel=1e-9)
    assert float(found.leads_from.sel(estimator="cheap")) == pytest.approx(0.3)
    assert float(found.leads_to.sel(estimator="dear")) == costs[-1]
    assert np.isnan(found.leads_from.sel(estimator=["worse", "bp"])).all()


def test_intervals_and_what_they_resolve() -> None:
    ds, _ = synthetic()
    costs = [1.0, 20.0, 150.0, 2000.0]
    found = stats.frontier(ds, costs=costs).isel(layer=0)
    law = stats.alignment(ds).isel(layer=0)
    for c in costs:
        ends = {}
        for e in ("cheap", "dear", "worse"):
            n, cell = c / PRICES[e], law.sel(estimator=e)
            slow = slow_jackknife(
                lambda a, x, t, g, n=n: a / np.sqrt(g * (x + t / n)), *(cell[k].values for k in "AXTG")
            )
            ends[e] = triple(found.sel(estimator=e, cost=c), "cosine")
            assert ends[e] == pytest.approx(slow)
        at = found.sel(cost=c)
        best = str(at.best.values)
        assert triple(at, "best_cosine") == ends[best]
        rest = max(high for e, (_, _, high) in ends.items() if e != best)
        assert bool(at.resolved) == (ends[best][1] > rest)
    assert found.resolved.any()
    near = stats.frontier(ds, costs=[float(found.leads_from.sel(estimator="dear"))]).isel(layer=0)
    assert not near.resolved.any()  # where laws cross nothing is resolved


def test_one_seed_has_a_frontier_without_intervals() -> None:
    ds, _ = synthetic()
    found = stats.frontier(ds.isel(seed=[0], other_seed=[0]))
    assert (found.best != "").any()
    assert not found.resolved.any()
    assert np.isnan(found.cosine_low.sel(estimator="cheap")).all()


def test_by_copies_seconds_and_forwards() -> None:
    ds, _ = synthetic()
    by = {kind: stats.frontier(ds, cost=kind, costs=[10.0]) for kind in ("copies", "seconds", "forwards")}
    law = stats.predict(stats.alignment(ds), 10)
    assert np.allclose(by["copies"].cosine.isel(cost=0), law.cosine)
    assert np.allclose(
        by["forwards"].cosine.isel(cost=0).sel(estimator="dear"), law.cosine.sel(estimator="dear")
    )
    seconds = stats.cost(ds)["seconds"].sel(estimator="dear").item()
    assert float(by["seconds"].copies.sel(estimator="dear").squeeze()) == pytest.approx(10 / seconds)


def test_backprop_alone_has_no_rival_and_no_frontier() -> None:
    ds = make_run(np.random.default_rng(0), estimators={"bp": Truth(stochastic=False)}, seeds=3)
    found = stats.frontier(ds)
    assert (found.best == "").all()
    assert np.isnan(found.leads_from).all()
    assert not found.resolved.any()


def test_refused_layers() -> None:
    truths = {"lr": Truth(), "es": Truth(refused=("fc",)), "none": Truth(missing=(0, 1, 2))}
    ds = make_run(np.random.default_rng(1), estimators=truths, seeds=3)
    found = stats.frontier(ds, costs=[100.0])
    assert str(found.best.sel(layer="fc").values[0]) == "lr"
    assert np.isnan(found.cosine.sel(estimator="es", layer="fc")).all()
    assert np.isnan(found.cosine.sel(estimator="none")).all()
    whole = stats.frontier(ds, costs=[100.0], over="model")
    assert np.isfinite(whole.cosine.sel(estimator="es")).all()  # the layer counts as a direction of zero
    assert np.isnan(whole.cosine.sel(estimator="none")).all()


def test_bounds_instead_of_values_are_never_resolved() -> None:
    truths = {"far": Truth(kappa=1e5), "near": Truth(rho=0.3, kappa=10.0)}
    ds = make_run(np.random.default_rng(5), layers={"fc": 300}, estimators=truths, seeds=5, blocks=20)
    found = stats.frontier(ds, costs=[1e6]).isel(layer=0, cost=0)
    assert np.isnan(found.cosine.sel(estimator="far"))
    assert np.isfinite(found.cosine_high.sel(estimator="far"))
    assert not bool(found.resolved)


def test_the_default_grid() -> None:
    ds, _ = synthetic()
    found = stats.frontier(ds)
    assert float(found.cost[0]) == pytest.approx(0.3)
    assert float(found.cost[-1]) == pytest.approx(10 * 640)
    assert str(found.best.isel(layer=0, cost=0).values) != ""


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cost": "flops"}, "unknown cost"),
        ({"over": "layers"}, "unknown over"),
        ({"costs": [1.0, -1.0]}, "positive"),
        ({"costs": []}, "positive"),
    ],
)
def test_refusals(options: dict, match: str) -> None:
    ds = make_run(np.random.default_rng(0), seeds=3, blocks=4)
    with pytest.raises(UsageError, match=match):
        stats.frontier(ds, **options)


def test_results_that_lost_a_dimension() -> None:
    ds = make_run(np.random.default_rng(0), seeds=3, blocks=4)
    with pytest.raises(UsageError, match="no dimension 'seed'"):
        stats.cost(ds.isel(seed=0))
    with pytest.raises(UsageError, match="two blocks"):
        stats.frontier(make_run(np.random.default_rng(0), seeds=3, blocks=1))
