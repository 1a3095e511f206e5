"""Statistics of paths against naive loops over walkers, statsmodels, and coverages that are known exactly."""

import json
import math

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.proportion import proportion_confint

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._shares import half_reached, matched, paired, quantile, wilson
from gradprobe.store.paths import with_starts
from tests.paths import GLOBAL, LOCAL, VALUE, WHERE, make_path
from tests.synthetic import make_run

INF = math.inf
DIAGONAL = math.hypot(*(high - low for low, high in WHERE))
PLAIN = {"estimators": ("bp", "lr"), "starts": 1, "seeds": 7, "steps": 60}
STARTS = {"starts": 3, "seeds": 6, "steps": 80, "diverge": {("lr", 0, 1): 5, ("alr", 2, 0): 80}}
RARELY = {"starts": 2, "seeds": 5, "steps": 50, "every": 7, "diverge": {("lr", 0, 2): 24, ("bp", 1, 0): 3}}
MANY = {"dims": 3, "seeds": 3, "noise": 0.3}
SETTINGS = [PLAIN, STARTS, RARELY, MANY]


def each_walker(path, name, start=None):
    """Of one estimator: (distances, losses, recorded steps, forwards), as lists, of each walker."""
    ds = with_starts(path).sel(estimator=name)
    for i in range(ds.sizes["start"]) if start is None else [start]:
        for s in range(ds.sizes["seed"]):
            one = ds.isel(start=i, seed=s)
            lost = float(one["diverged"])
            walk = []
            for k, step in enumerate(one["step"].values):
                gone = not math.isnan(lost) and step >= lost
                loss, distance = float(one["loss"][k]), float(one["distance"][k])
                walk.append((INF, INF) if gone else (distance, loss))
            yield walk, list(one["step"].values), list(one["forwards"].values)


def first_visit(walk, clock, radius):
    for (distance, _), when in zip(walk, clock, strict=True):
        if distance <= radius:
            return float(when)
    return INF


def half(times):
    """The first time by which at least half have arrived."""
    for t in sorted(times):
        if sum(u <= t for u in times) * 2 >= len(times):
            return t
    raise AssertionError


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("radius", [None, 0.3])
def test_success_is_the_loop(setting, radius):
    path = make_path(**setting)
    found = stats.success(path, radius=radius, level=0.9)
    used = 0.01 * math.hypot(*np.diff(json.loads(path.attrs["domain"])).ravel()) if radius is None else radius
    assert found.attrs["radius"] == pytest.approx(used)
    for name in path.estimator.values:
        got = found.sel(estimator=name)
        walks = list(each_walker(path, name))
        steps = [first_visit(w, clock, used) for w, clock, _ in walks]
        spent = [first_visit(w, forwards, used) for w, _, forwards in walks]
        hits, n = sum(s < INF for s in steps), len(walks)
        assert got.walkers == n
        assert float(got.rate) == pytest.approx(hits / n)
        low, high = proportion_confint(hits, n, alpha=0.1, method="wilson")
        ends = (low, high) if got.stochastic else (hits / n, hits / n)
        assert [float(got.rate_low), float(got.rate_high)] == pytest.approx(ends, abs=1e-12)
        assert float(got.stayed) == pytest.approx(sum(w[-1][0] <= used for w, _, _ in walks) / n)
        assert float(got.diverged) == pytest.approx(sum(w[-1][1] == INF for w, _, _ in walks) / n)
        assert float(got.steps) == half(steps)
        assert float(got.forwards) == half(spent)
    assert "color" in found.coords


def test_success_of_single_starts():
    path = make_path(**STARTS)
    found = stats.success(path, radius=0.3, over="start")
    assert found.rate.dims == ("estimator", "start")
    for i, start in enumerate(path.start.values):
        alone = stats.success(path.sel(start=[start]), radius=0.3)
        assert alone.drop_vars("start", errors="ignore").identical(
            found.isel(start=i, drop=True).assign_attrs(alone.attrs)
        )
    assert stats.success(make_path(), over="start").sizes["start"] == 1


def with_distance(distance):
    """A path of one noisy estimator and one start, whose distances ``[seed, step]`` are these."""
    rows = np.asarray(distance, dtype=float)
    path = make_path(estimators=("lr",), seeds=rows.shape[0], steps=rows.shape[1] - 1)
    return path.assign(distance=path.distance.copy(data=rows[None]))


def only(path):
    """Success of the only estimator, within 1."""
    return stats.success(path, radius=1.0).isel(estimator=0)


def test_never_is_exact():
    """Half of an even number is enough, the radius itself is inside, and leaving again does not undo a visit."""
    found = only(with_distance([[3, 2, 1, 2], [3, 2, 2, 1], [3, 3, 3, 3], [2, 2, 2, 2]]))
    assert (float(found.rate), float(found.stayed)) == (0.5, 0.25)
    assert (float(found.steps), float(found.forwards)) == (3.0, 48.0)
    found = only(with_distance([[3, 1, 1], [3, 2, 2], [3, 3, 3]]))
    assert (float(found.steps), float(found.forwards)) == (INF, INF)
    never = only(with_distance([[3, 3], [3, 3]]))
    assert (float(never.rate), float(never.rate_low), float(never.steps)) == (0.0, 0.0, INF)
    always = only(with_distance([[0.5, 3], [1.0, 3]]))
    assert (float(always.rate), float(always.rate_high), float(always.steps)) == (1.0, 1.0, 0.0)


def test_default_radius_is_a_share_of_the_diagonal():
    assert stats.success(make_path()).attrs["radius"] == pytest.approx(0.01 * DIAGONAL)
    assert stats.basins(make_path(domain=False), radius=0.5).attrs["radius"] == 0.5


@pytest.mark.parametrize("setting", SETTINGS)
def test_progress_is_the_loop(setting):
    path = make_path(**setting)
    found = stats.progress(path, radius=0.4, quantiles=(0.2, 0.7))
    assert found.loss.dims == ("estimator", "step")
    for name in path.estimator.values:
        walks = list(each_walker(path, name))
        got = found.sel(estimator=name)
        for k in range(path.sizes["step"]):
            hits = sum(any(d <= 0.4 for d, _ in w[: k + 1]) for w, _, _ in walks)
            losses = sorted(w[k][1] for w, _, _ in walks)
            assert float(got.reached[k]) == pytest.approx(hits / len(walks))
            if got.stochastic:
                low, high = proportion_confint(hits, len(walks), method="wilson")
                assert float(got.reached_low[k]) == pytest.approx(low, abs=1e-12)
                assert float(got.reached_high[k]) == pytest.approx(high, abs=1e-12)
            for which, p in (("loss", 0.5), ("loss_low", 0.2), ("loss_high", 0.7)):
                assert float(got[which][k]) == pytest.approx(naive_quantile(losses, p))
            seen = with_starts(path).cosine.sel(estimator=name).isel(step=k).values.ravel()
            seen = seen[~np.isnan(seen)]
            want = seen.mean() if seen.size else math.nan
            assert float(got.cosine[k]) == pytest.approx(want, nan_ok=True)
        assert (got.forwards == path.forwards.sel(estimator=name)).all()
    exact = found.isel(estimator=~found.stochastic.values)
    assert (exact.reached_low == exact.reached).all()
    assert (exact.reached_high == exact.reached).all()


def naive_quantile(ordered, p):
    where = (len(ordered) - 1) * p
    below = math.floor(where + 1e-9)
    share = where - below
    if share < 1e-9:
        return ordered[below]
    return INF if ordered[below + 1] == INF else (1 - share) * ordered[below] + share * ordered[below + 1]


def test_progress_without_minimum_or_domain():
    for path in (make_path(minima=False), make_path(domain=False)):
        found = stats.progress(path)
        assert found[["reached", "reached_low", "reached_high"]].to_array().isnull().all()
        assert found[["loss", "loss_low", "loss_high"]].to_array().notnull().all()
    assert stats.progress(make_path(domain=False), radius=0.5).reached.notnull().all()


def test_quantiles_with_infinity():
    x = np.array([2.0, 1.0, INF, 3.0])
    assert half_reached(x) == 2.0
    assert half_reached(np.array([1.0, INF, INF])) == INF
    for p in (0.0, 0.1, 0.5, 2 / 3):
        assert quantile(x, p) == pytest.approx(np.quantile([1.0, 2.0, 3.0, 4.0], p))
    assert quantile(x, 0.67) == INF
    assert quantile(np.array([INF, INF]), 0.5) == INF
    hundred = np.where(np.arange(101) > 7, INF, np.arange(101.0))
    assert quantile(hundred, 0.07) == 7.0  # 100 * 0.07 > 7 in floating point


@pytest.mark.parametrize("radius", [0.6, 1.2])  # the larger one holds both minima at once
def test_basins_are_the_loop(radius):
    path = make_path(**STARTS)
    found = stats.basins(path, radius=radius)
    assert found.dims == ("estimator", "start", "seed")
    assert np.issubdtype(found.dtype, np.integer)
    assert "-1: near no" in found.attrs["meaning"]
    assert "-2: diverged" in found.attrs["meaning"]
    spots = [(GLOBAL, 0.0), (LOCAL, 0.0)]
    seen = set()
    for e, i, s in np.ndindex(found.shape):
        end = path.position.values[e, i, s, -1]
        gaps = [math.dist(end, spot) if np.isfinite(end).all() else INF for spot in spots]
        want = gaps.index(min(gaps)) if min(gaps) <= radius else -1
        want = want if math.isnan(path.diverged.values[e, i, s]) else -2
        assert int(found[e, i, s]) == want
        seen.add(want)
    assert seen >= {-2, 0, 1}
    assert (-1 in seen) == (radius == 0.6)
    assert stats.basins(make_path()).sizes["start"] == 1


def test_basins_need_any_minimum_and_success_a_global_one():
    path = make_path().isel(minimum=[1])
    assert set(np.unique(stats.basins(path, radius=100.0))) == {0}
    with pytest.raises(UsageError, match="no global minimum of two wells"):
        stats.success(path)


def naive_difference(path, first, second, radius):
    """Wins and losses of each kind, over pairs one by one."""
    counts = {k: [0, 0] for k in ("success", "earlier", "cheaper", "lower")}
    for (a, clock, cost_a), (b, _, cost_b) in zip(
        each_walker(path, first), each_walker(path, second), strict=True
    ):
        steps = first_visit(a, clock, radius), first_visit(b, clock, radius)
        spent = first_visit(a, cost_a, radius), first_visit(b, cost_b, radius)
        never = [float(s == INF) for s in steps]
        for kind, (x, y) in {
            "success": never,
            "earlier": steps,
            "cheaper": spent,
            "lower": (a[-1][1], b[-1][1]),
        }.items():
            counts[kind][0] += x < y
            counts[kind][1] += y < x
    return counts


@pytest.mark.parametrize("setting", [PLAIN, STARTS, RARELY])
def test_difference_is_the_loop(setting):
    path = make_path(**setting)
    first, second = path.estimator.values[-1], path.estimator.values[0]
    for one, other, sign in ((first, second, 1), (second, first, -1)):
        found = stats.difference(path, one, other, radius=0.4)
        n = int(found.pairs)
        assert n == with_starts(path).sizes["start"] * path.sizes["seed"]
        for kind, (wins, losses) in naive_difference(path, one, other, 0.4).items():
            assert float(found[kind]) == pytest.approx((wins - losses) / n)
            # the four cells, half a pair added to each; the two kinds of tie do not matter
            b, c, all_ = wins + 0.5, losses + 0.5, n + 2
            d, se = (b - c) / all_, math.sqrt((b + c) / all_ - ((b - c) / all_) ** 2) / math.sqrt(all_)
            ends = [max(d - 1.959963985 * se, -1.0), min(d + 1.959963985 * se, 1.0)]
            assert [float(found[f"{kind}_{end}"]) for end in ("low", "high")] == pytest.approx(ends)
        assert sign * float(found.lower) == pytest.approx(
            float(stats.difference(path, first, second, radius=0.4).lower)
        )


def test_log_ratio_is_the_loop():
    path = make_path(starts=3, seeds=5, steps=30)
    found = stats.difference(path, "lr", "alr", level=0.9)
    end = path.loss.isel(step=-1) - VALUE
    ratio = np.log10(end.sel(estimator="lr") / end.sel(estimator="alr")).mean("start").values
    low, high = sps.t.interval(0.9, 4, loc=ratio.mean(), scale=sps.sem(ratio))
    got = [float(found[f"log10_loss{x}"]) for x in ("", "_low", "_high")]
    assert got == pytest.approx([ratio.mean(), low, high])
    assert int(found.left_out) == 0
    alone = stats.difference(path.isel(seed=[0]), "lr", "alr")
    assert float(alone.log10_loss) == pytest.approx(ratio[0])
    assert np.isnan(alone.log10_loss_low)


def test_log_ratio_is_missing_where_a_pair_has_none():
    lost = make_path(diverge={("alr", 0, 1): 9, ("alr", 0, 2): 40})
    found = stats.difference(lost, "lr", "alr")
    assert np.isnan(found.log10_loss)
    assert np.isnan(found.log10_loss_low)
    assert int(found.left_out) == 2
    there = make_path()
    there.loss[{"estimator": 0, "seed": 3, "step": -1}] = VALUE
    assert int(stats.difference(there, "bp", "alr").left_out) == 1
    unknown = stats.difference(make_path(minima=False), "lr", "alr")
    assert np.isnan(unknown.log10_loss)
    assert int(unknown.left_out) == 4
    assert np.isnan(unknown.success)
    assert np.isnan(unknown.cheaper_low)
    assert np.isfinite(unknown.lower_high)
    zero = make_path()  # a minimum of 0 is a number like any other
    zero = zero.assign(loss=zero.loss - VALUE).assign_attrs(minimum_value=0.0)
    assert np.isfinite(stats.difference(zero, "lr", "alr").log10_loss)
    assert np.isnan(stats.difference(zero.assign_attrs(minimum_value=None), "lr", "alr").log10_loss)


def test_two_that_diverge_tie():
    path = make_path(seeds=2, diverge={("lr", 0, 0): 5, ("alr", 0, 0): 20, ("alr", 0, 1): 40})
    found = stats.difference(path, "lr", "alr")
    assert float(found.lower) == 0.5
    assert float(stats.difference(path, "alr", "lr").lower) == -0.5


def test_methods_without_noise_have_one_pair_for_each_start():
    path = make_path(estimators=("bp", "lr", "alr"), starts=3, seeds=5, noise=0.0)
    path["stochastic"] = ("estimator", [False, True, False])
    found = stats.difference(path, "bp", "alr", radius=0.4)
    assert int(found.pairs) == 3
    for name in ("success", "earlier", "cheaper", "lower", "log10_loss"):
        assert found[name] == found[f"{name}_low"] == found[f"{name}_high"]
    assert int(stats.difference(path, "bp", "lr").pairs) == 15


def test_matched_pairs_are_those_of_propcis():
    """R's PropCIs::diffpropci.mp(b = 40, c = 20, n = 160), from its manual; it subtracts the other way round."""
    assert matched(20, 40, 160, 0.95) == pytest.approx((-0.21601726, -0.03089632), abs=1e-8)


def test_intervals_hold_their_value_at_every_level():
    for level in (0.01, 0.5, 0.68, 0.95, 0.999):
        for n in (1, 2, 10, 100):
            for b in range(n + 1):
                for c in range(n + 1 - b):
                    low, high = matched(b, c, n, level)
                    assert -1 <= low <= (b - c) / n <= high <= 1
            low, high = wilson(np.arange(n + 1), n, level)
            assert ((low <= np.arange(n + 1) / n) & (np.arange(n + 1) / n <= high)).all()


def exact_coverage(n, win, loss, level=0.95):
    """Coverage of the interval for matched pairs, summed over every possible outcome of n pairs."""
    b, c = (x.ravel() for x in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    b, c = b[b + c <= n], c[b + c <= n]
    chance = sps.multinomial.pmf(np.stack([b, c, n - b - c], -1), n, [win, loss, 1 - win - loss])
    low, high = matched(b, c, n, level)
    inside = (low <= win - loss + 1e-12) & (win - loss <= high + 1e-12)
    return float(chance[inside].sum())


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_matched_pairs_cover_exactly(level):
    """No simulation: on average as stated, and nowhere far below, for 50 pairs or more (see the figures)."""
    cells = np.random.default_rng(3).dirichlet([1, 1, 1], 60)[:, :2]
    for n in (50, 100):
        found = [exact_coverage(n, *cell, level) for cell in cells]
        assert abs(np.mean(found) - level) < 0.01
        assert min(found) > level - 0.04
        for cell in ((0.0, 0.0), (1.0, 0.0), (0.99, 0.0)):  # all ties, all wins, all but a few
            assert exact_coverage(n, *cell, level) > level


def test_matched_pairs_at_their_worst():
    """What the interval promises where almost all pairs tie, exactly.

    Equal methods are told apart in at most 7 % of runs from 20 pairs on, and in 11 % with 10. But where one side
    never loses and wins in 2 of n pairs, no win is seen in 14 % of runs, and +-1.96/(n + 2) is then too short.
    """
    for n, least in ((10, 0.89), (20, 0.93), (50, 0.935), (100, 0.943)):
        assert min(exact_coverage(n, p, p) for p in np.linspace(0.0, 0.5, 101)) > least
    for n in (20, 50, 100):
        edge = [exact_coverage(n, p / n, 0.0) for p in np.linspace(0.1, 6.0, 60)]
        assert 0.84 < min(edge) < 0.87


# Chances of (first's step, second's step) for the steps 1, 2 and never: dependent, as with shared noise.
JOINT = {
    "alike": [[0.30, 0.05, 0.05], [0.05, 0.20, 0.05], [0.05, 0.05, 0.20]],
    "better": [[0.10, 0.30, 0.20], [0.05, 0.10, 0.10], [0.05, 0.00, 0.10]],
    "rare win": [[0.50, 0.01, 0.00], [0.00, 0.20, 0.00], [0.00, 0.00, 0.29]],
    "at the edge": [[0.50, 0.02, 0.00], [0.00, 0.20, 0.00], [0.00, 0.00, 0.28]],
    "all ties": [[0.20, 0.00, 0.00], [0.00, 0.00, 0.00], [0.00, 0.00, 0.80]],
    "all wins": [[0.00, 0.50, 0.50], [0.00, 0.00, 0.00], [0.00, 0.00, 0.00]],
}
RUNS, PAIRS = 4000, 100


def drawn(name, rng, pairs=PAIRS):
    """Steps of first and second ``[run, pair]``, and the chances of a win and of a loss."""
    table = np.array(JOINT[name])
    assert table.sum() == pytest.approx(1.0)
    cell = rng.choice(9, size=(RUNS, pairs), p=table.ravel())
    times = np.array([1.0, 2.0, INF])
    return times[cell // 3], times[cell % 3], np.triu(table, 1).sum(), np.tril(table, -1).sum()


@pytest.mark.parametrize("name", JOINT)
def test_paired_shares_cover(name):
    """4,000 runs of 100 pairs, one look: coverage against its exact value, at 1e-6 a side.

    False alarms: about 1e-5 over the six settings. Seen for certain: a coverage that is off by 4 points.
    """
    first, second, win, loss = drawn(name, np.random.default_rng(11))
    value, low, high = paired(first, second, 0.95)
    inside = np.sum((low <= win - loss + 1e-12) & (win - loss <= high + 1e-12))
    truth = exact_coverage(PAIRS, win, loss)
    assert sps.binom.ppf(1e-6, RUNS, truth) <= inside <= sps.binom.ppf(1 - 1e-6, RUNS, truth)
    assert abs(value.mean() - (win - loss)) <= 5 * math.sqrt((win + loss) / RUNS / PAIRS)
    assert (low < high).all()


def test_the_study_would_see_the_plain_wald_interval():
    """Planted fault: no half added. It collapses where no pair is won: 0.99^100 = 37 % of runs."""
    first, second, win, loss = drawn("rare win", np.random.default_rng(12))
    d = ((first < second).sum(-1) - (first > second).sum(-1)) / PAIRS
    half_width = 1.96 * np.sqrt(((first != second).mean(-1) - d**2) / PAIRS)
    inside = np.sum(np.abs(d - (win - loss)) <= half_width)
    assert inside < sps.binom.ppf(1e-6, RUNS, exact_coverage(PAIRS, win, loss))


def test_several_starts_make_paired_intervals_conservative():
    """Half of the pairs like "better", half like "alike": coverage at least 95 % (1e-6 below that)."""
    rng = np.random.default_rng(13)
    a, b = drawn("better", rng, 50), drawn("all ties", rng, 50)
    truth = (a[2] - a[3] + b[2] - b[3]) / 2
    _, low, high = paired(np.hstack([a[0], b[0]]), np.hstack([a[1], b[1]]), 0.95)
    assert np.sum((low <= truth) & (truth <= high)) >= sps.binom.ppf(1e-6, RUNS, 0.95)


def test_wilson_is_conservative_over_several_starts():
    """Exact coverage over two starts with chances m -/+ apart: it rises with the distance between them."""
    n = 40
    low, high = wilson(np.arange(n + 1), n, 0.95)

    def average(apart):
        found = []
        for m in np.linspace(0.31, 0.69, 39):
            chance = np.convolve(
                sps.binom.pmf(np.arange(n // 2 + 1), n // 2, m - apart),
                sps.binom.pmf(np.arange(n // 2 + 1), n // 2, m + apart),
            )
            found.append(chance[(low <= m) & (m <= high)].sum())
        return np.mean(found)

    covered = [average(apart) for apart in (0.0, 0.1, 0.2, 0.3)]
    assert covered == sorted(covered)
    assert abs(covered[0] - 0.95) < 0.01
    assert covered[-1] > 0.97


def test_a_selected_start_keeps_its_label():
    path = make_path(**STARTS)
    one = with_starts(path.sel(start=2))
    assert one.start.values.tolist() == [2]
    assert one.transpose(*path.dims).identical(path.sel(start=[2]).transpose(*path.dims))


def test_only_recorded_steps_count():
    """A visit between two recorded steps is not seen, and a part of a path is a path."""
    fine = with_distance([[3, 0.1, 3, 0.1, 3], [3, 3, 3, 3, 3]])
    assert float(only(fine).rate) == 0.5
    assert float(only(fine.isel(step=[0, 2, 4])).rate) == 0.0
    late = make_path(estimators=("lr",), diverge={("lr", 0, 0): 30})
    assert float(only(late).diverged) == 0.25
    assert float(only(late.isel(step=slice(0, 20))).diverged) == 0.0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.success(None), "needs the path"),
        (lambda: stats.success(make_run(np.random.default_rng(0), seeds=2, blocks=2)), "not other results"),
        (lambda: stats.progress(make_path().loss), "not a DataArray"),
        (lambda: stats.success(make_path(minima=False)), "minima="),
        (lambda: stats.success(make_path(domain=False)), "radius=0.1"),
        (lambda: stats.basins(make_path(minima=False)), "no minimum"),
        (lambda: stats.basins(make_path(domain=False)), "has no domain"),
        (lambda: stats.success(make_path(), over="seed"), "unknown over 'seed'"),
        (lambda: stats.success(make_path(), level=95), "level=95"),
        (lambda: stats.success(make_path(), level="high"), "no probability"),
        (lambda: stats.success(make_path(), radius=-1), "radius must be a positive number"),
        (lambda: stats.basins(make_path(), radius="near"), "radius must be a positive number"),
        (lambda: stats.progress(make_path(), radius=math.nan), "radius must be a positive number"),
        (lambda: stats.progress(make_path(), quantiles=(0.9, 0.1)), "a low and a high one"),
        (lambda: stats.progress(make_path(), quantiles=0.5), "a low and a high one"),
        (lambda: stats.difference(make_path(), "lr", "arl"), "Did you mean 'alr'"),
        (lambda: stats.difference(make_path(), "lr", "lr"), "both 'lr'"),
        (lambda: stats.difference(make_path(), "lr", "alr", level=0), "level=0"),
        (lambda: stats.success(make_path().isel(seed=0)), "dimension 'seed'"),
        (lambda: stats.success(make_path().isel(step=[])), "dimension 'step'"),
        (lambda: stats.basins(make_path().sel(estimator="lr")), "dimension 'estimator'"),
        (lambda: stats.success(make_path().drop_vars("diverged")), "lost its 'diverged'"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
