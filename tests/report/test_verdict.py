"""Sentences about runs whose truth is known: the right ones, no false ones, and a true one for every odd run."""

from __future__ import annotations

import io
import itertools
import json
import re
import time

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

import gradprobe as gp
from gradprobe.report import kinds
from gradprobe.report.claims import claims, laws_of
from gradprobe.report.text import show
from gradprobe.report.wording import needed_text
from tests.synthetic import LAYERS, Truth, make_run, make_world

N = 320
"""Copies of a synthetic run: 20 blocks of 16."""
TARGETS = kinds.Targets(0.9, 0.95)
TRUTH = {
    "near": (Truth(1.0, 0.02 * N), kinds.NEARLY),
    "good": (Truth(0.99, 0.15 * N), kinds.GOOD),
    "biased": (Truth(0.6, 0.2 * N), kinds.BIAS),
    "noisy": (Truth(1.0, 0.6 * N), kinds.NOISE),
    "lost": (Truth(1.0, 1e5 * N), kinds.NOTHING),
}
FALSE = {
    "near": {kinds.BIAS, kinds.NOISE, kinds.AGAINST},
    "good": {kinds.BIAS, kinds.NOISE, kinds.AGAINST},
    "biased": {kinds.NEARLY, kinds.GOOD, kinds.NOISE, kinds.AGAINST},
    "noisy": {kinds.NEARLY, kinds.GOOD, kinds.BIAS, kinds.AGAINST},
    "lost": {kinds.NEARLY, kinds.GOOD, kinds.BIAS, kinds.AGAINST},
}
WIDE = {f"l{i}": 400 for i in range(4)}


def judged(seed: int, estimators: dict[str, Truth], layers=None, **options):
    """Kinds ``{method: [one for each layer]}``; the law's tests are left out, so that claims alone are looked at."""
    rng = np.random.default_rng(seed)
    ds = make_run(rng, layers=layers or LAYERS, estimators=estimators, **options)
    table = claims(ds, "layer", "bp", TARGETS, laws_of(ds, "bp"), None)
    return {method: list(mine["kind"]) for method, mine in table.groupby("method", sort=False)}


def test_kinds_are_right_and_none_is_false() -> None:
    """30 runs of 4 layers: a false kind anywhere in at most 5 % of runs, the right one in nine of ten cells."""
    runs, false, right = 30, 0, dict.fromkeys(TRUTH, 0)
    for seed in range(runs):
        found = judged(seed, {m: truth for m, (truth, _) in TRUTH.items()}, WIDE, products=True)
        false += any(set(found[m]) & FALSE[m] for m in TRUTH)
        for m, (_, kind) in TRUTH.items():
            right[m] += found[m].count(kind)
    assert false <= binom.ppf(1 - 1e-4, runs, 0.05)
    cells = runs * len(WIDE)
    for m, count in right.items():
        assert count >= binom.ppf(1e-4, cells, 0.9), (m, count, cells)


@pytest.mark.parametrize("rho", [0.9, 1.0])
def test_no_false_claim_of_bias_or_of_none(rho: float) -> None:
    """At a ceiling of just 0.9, or 1, at every level of noise: a false claim in at most 5 % of 40 runs.

    0.9 itself is the worst case: there both "bias-limited" and "noise-limited" are false.
    """
    noise = {f"{n:g}": Truth(rho, n * N) for n in (0.3, 1, 5, 30)}
    wrong = {kinds.BIAS, kinds.NOISE} if rho == 0.9 else {kinds.BIAS}
    false = sum(bool(wrong & set(itertools.chain(*judged(100 + s, noise).values()))) for s in range(40))
    assert false <= binom.ppf(1 - 1e-4, 40, 0.05)


def test_claims_quote_intervals_on_their_side_of_the_threshold() -> None:
    rng = np.random.default_rng(5)
    truths = {m: truth for m, (truth, _) in TRUTH.items()}
    table = gp.verdict(make_run(rng, estimators=truths, products=True), cosine=0.85, exact=0.97).table
    of = {kind: rows for kind, rows in table.groupby("kind")}
    assert (of[kinds.NEARLY]["cosine_low"] > 0.97).all()
    assert (of[kinds.BIAS]["ceiling_high"] < 0.85).all()
    assert (of[kinds.GOOD]["cosine_low"] > 0.85).all()
    assert (of[kinds.NEARLY]["nearly_high"] <= N).all()
    if kinds.NOISE in of:
        assert (of[kinds.NOISE]["cosine_high"] < 0.85).all()
        assert np.isfinite(of[kinds.NOISE]["needed_high"]).all()


def test_sentences_name_what_they_are_of_and_their_numbers() -> None:
    rng = np.random.default_rng(6)
    truths = {"lr": Truth(1.0, 6.0), "alr": Truth(0.6, 60.0), "fa": Truth(0.5, 0.0, stochastic=False)}
    found = gp.verdict(make_run(rng, estimators=truths))
    text = " ".join(found.sentences)
    assert found.sentences[0].startswith("In the whole model lr is nearly exact: from about ")
    assert "Under alr, all 3 layers are bias-limited, worst " in text
    assert "no number of copies gets past 0." in text
    assert "Under fa, all 3 layers are bias-limited, worst " in text
    assert "without noise" in text
    assert "Smoothing bias is not told from bias of the encoding" in text
    assert found.sentences[-1].startswith("All of this is of ")
    of = found.of("fc")
    assert [s.split(":")[0] for s in of] == ["lr in fc", "alr in fc", "fa in fc"]
    assert max(map(len, str(found).splitlines())) <= 100
    with pytest.raises(gp.UsageError, match="Did you mean 'conv2'"):
        found.of("conv")


def test_unequal_gains_are_blamed_for_the_whole_model() -> None:
    """Layers of ceiling 1 and gains 1 and 0.1: the model's ceiling is sum c G/sqrt(sum c^2 G sum G), 0.77."""
    rng = np.random.default_rng(7)
    layers = {"a": 300, "b": 300}
    g = {name: rng.standard_normal(300) for name in layers}
    g = {name: x / np.linalg.norm(x) for name, x in g.items()}
    truth = {"lr": Truth(1.0, 10.0, {"a": 1.0, "b": 0.1})}
    world = make_world(rng, layers, truth, 5, 20, 16, g)
    found = gp.verdict(make_run(rng, layers=layers, estimators=truth, world=world))
    (said,) = [s for s in found.sentences if "gains differ" in s]
    assert "from 0.1 in b to 1 in a" in said
    assert float(said.split("ceiling at ")[1].split()[0]) == pytest.approx(1.1 / np.sqrt(1.01 * 2), abs=0.02)
    assert float(said.split("it is ")[1].split()[0]) > 0.97
    assert found.table.set_index(["over", "layer"])["kind"].to_dict() == {
        ("model", kinds.MODEL): kinds.BIAS,
        ("layer", "a"): kinds.NEARLY,
        ("layer", "b"): kinds.NEARLY,
    }


def test_dependent_blocks_take_all_claims_back() -> None:
    rng = np.random.default_rng(8)
    truths = {"lr": Truth(1.0, 6.0), "es": Truth(1.0, 30.0)}
    world = make_world(rng, LAYERS, truths, 5, 20, 16)
    for (label, _), drawn in world.blocks.items():
        if label == "es":
            drawn["fc"] = np.repeat(drawn["fc"][::2], 2, axis=0)
    found = gp.verdict(make_run(rng, estimators=truths, world=world, products=True))
    kind = found.table.set_index(["method", "layer"])["kind"]
    assert kind["es", "fc"] == kind["es", kinds.MODEL] == kinds.BROKEN
    assert kind["lr", "fc"] == kinds.NEARLY
    assert any(s.startswith("es in fc: ") and "nothing is claimed" in s for s in found.sentences)


def test_bias_is_split_where_the_smoothed_reference_is_there() -> None:
    rng = np.random.default_rng(9)
    ds = make_run(rng, estimators={"alr": Truth(0.6, 30.0)}, noisy_blocks=20, reference_noise=0.05)
    row = gp.verdict(ds).table.set_index("layer").loc["fc"]
    assert row["encoding"] == pytest.approx(0.4, abs=0.08)
    assert abs(row["smoothing"]) < 0.02
    assert "it loses 0." in row["sentence"]
    assert row["sentence"].endswith(" to the encoding.")  # smoothing is nothing here and left out


def test_a_declared_mean_tells_noise_from_bias_far_beyond_the_run() -> None:
    """kappa = 30 N: the method's own moments cannot; n* = kappa/(1/0.9^2 - 1) is quoted within its interval."""
    rng = np.random.default_rng(10)
    ds = make_run(
        rng, layers=WIDE, estimators={"es": Truth(1.0, 30 * N)}, noisy_blocks=20, reference_noise=0.01
    )
    alone = gp.verdict(ds).table
    assert not alone["declared"].any()
    ds = ds.assign_coords(target=("estimator", ["smoothed"]))
    found = gp.verdict(ds).table
    claimed = found[(found["over"] == "layer") & found["declared"]]
    assert len(claimed) >= 3
    true = 30 * N / (0.9**-2 - 1)
    assert ((claimed["needed_low"] <= true * 1.2) & (true <= claimed["needed_high"] * 1.2)).all()
    assert claimed["sentence"].str.contains("if its mean is as declared").all()


ODD = {
    "one seed": {"seeds": 1},
    "two seeds": {"seeds": 2},
    "one block": {"blocks": 1},
    "few blocks": {"blocks": 3},
}


@pytest.mark.parametrize("name", ODD)
def test_runs_that_are_too_small_get_no_number(name: str) -> None:
    truths = {"lr": Truth(1.0, 6.0), "fa": Truth(0.5, 0.0, stochastic=False)}
    found = gp.verdict(make_run(np.random.default_rng(0), estimators=truths, **ODD[name]))
    kind = found.table.groupby("method")["kind"].agg(set)
    assert kind["lr"] == {kinds.SMALL}
    assert kind["fa"] == {kinds.BIAS}
    (said,) = [s for s in found.sentences if s.startswith("Under lr")]
    assert "too few" in said
    assert "cosine" not in said
    assert any("Claims need 5 seeds of 20 blocks" in s for s in found.sentences)


def test_incomplete_runs_get_true_sentences() -> None:
    truths = {
        "lr": Truth(1.0, 6.0, refused=("conv1",)),
        "es": Truth(1.0, 6.0, failed=(0, 1)),
        "aes": Truth(0.6, 6.0, missing=(0, 1, 2, 3, 4)),
    }
    ds = make_run(np.random.default_rng(1), estimators=truths)
    ds.attrs["stopped"] = 1
    found = gp.verdict(ds)
    text = "\n".join(found.sentences)
    for said in (
        "The run was stopped",
        "es: 6 of 15 pairs of layer and seed failed, in conv1, conv2 and fc",
        "Under aes, nothing was computed in all 3 layers",
        "It does not serve conv1",
        "a layer that a method does not serve counts as 0",
    ):
        assert said in text
    assert "the synthetic estimator does not serve it" in found.of("conv1")[0]


def test_methods_of_different_size_are_not_said_to_be_of_one() -> None:
    truths = {
        "es": Truth(1.0, 6.0, failed=(0, 1)),
        "x": Truth(1.0, 6.0, blocks=10),
        "y": Truth(1.0, 6.0, blocks=10),
    }
    text = gp.verdict(make_run(np.random.default_rng(1), estimators=truths)).sentences
    assert "Whole model, es: nothing is claimed: 320 copies x 3 seeds are too few." in text
    assert "Whole model, x and y: nothing is claimed: 160 copies x 5 seeds are too few." in text
    assert "Under x and y, nothing is claimed of all 3 layers: 160 copies x 5 seeds are too few." in text


def test_the_report_prints_it_before_the_tables() -> None:
    ds = make_run(np.random.default_rng(1), estimators={"l[b]r": Truth(1.0, 6.0)})
    console = Console(file=io.StringIO(), width=150)
    show(ds, console)
    printed = " ".join(console.file.getvalue().split())
    first = gp.verdict(ds).sentences[0]
    assert first.startswith("In the whole model l[b]r is nearly exact")
    assert printed.index(first) < printed.index("Mean over layers")


def test_of_nothing_but_noise_no_number_is_quoted() -> None:
    """Any cosine at all in at most 5 % of 40 runs."""
    noise = {m: Truth(1.0, 1e9) for m in ("lr", "es")}
    quoted = sum(set().union(*judged(200 + s, noise).values()) != {kinds.NOTHING} for s in range(40))
    assert quoted <= binom.ppf(1 - 1e-4, 40, 0.05)
    rows = gp.verdict(make_run(np.random.default_rng(200), estimators=noise)).table
    silent = rows[rows["kind"] == kinds.NOTHING]
    assert len(silent) >= 6
    assert (
        silent["sentence"]
        .str.contains("320 copies x 5 seeds are too few to tell a direction from noise")
        .all()
    )
    assert not silent["sentence"].str.contains("cosine").any()


def test_a_hundred_layers_are_said_in_few_sentences_and_soon() -> None:
    rng = np.random.default_rng(3)
    layers = {f"block.{i}": 24 for i in range(100)}
    truths = {f"m{j}": Truth(1.0 if j % 2 else 0.6, 10.0**j / 1000) for j in range(8)}
    ds = make_run(rng, layers=layers, estimators=truths, seeds=5, blocks=20)
    start = time.process_time()
    found = gp.verdict(ds)
    assert time.process_time() - start < 3  # 0.4 seconds when this was written
    assert len(found.sentences) <= 25
    assert max(map(len, found.sentences)) < 700
    assert "of 100 layers" in str(found)
    assert len(found.of("block.7")) == 8


def test_names_are_escaped() -> None:
    ds = make_run(np.random.default_rng(4), layers={"<b>&\n": 40}, estimators={"l<r": Truth(1.0, 5.0)})
    found = gp.verdict(ds)
    assert "<b>" not in found._repr_html_()
    assert "&lt;b&gt;" in found._repr_html_()
    assert all(s.isprintable() for s in found.sentences)


def test_what_a_verdict_cannot_be_of_is_refused() -> None:
    ds = make_run(np.random.default_rng(4))
    for wrong, options, says in (
        (ds.expand_dims(checkpoint=["a", "b"]), {}, "one checkpoint and these results have 2"),
        (ds, {"reference": "smoothed"}, "unknown reference 'smoothed'"),
        (ds, {"cosine": 1.5}, "cosine must be a number between 0 and 1"),
        (ds, {"cosine": 0.9, "exact": 0.8}, "exact=0.8 is below cosine=0.9"),
    ):
        with pytest.raises(gp.UsageError, match=says) as caught:
            gp.verdict(wrong, **options)
        assert "\n" not in str(caught.value)
    alone = gp.verdict(ds.expand_dims(checkpoint=["a"]))
    assert alone.sentences == gp.verdict(ds).sentences


def test_surrogates_warnings_and_lost_copies_are_told() -> None:
    ds = make_run(np.random.default_rng(4), estimators={"lr": Truth(0.6, 5.0)})
    ds.attrs["smoothed"] = json.dumps({"draw(...) | conv1": "score", "draw(...) | fc": "pathwise"})
    ds.attrs["doctor"] = json.dumps([{"check": "backprop", "layer": "conv1", "sentence": "", "noted": True}])
    ds["nonfinite"][:] = 0.0
    ds["nonfinite"][0, 0, 0, -1] = 3.0
    text = "\n".join(gp.verdict(ds).sentences)
    assert "Backprop is itself a surrogate in conv1: a low ceiling says that the two differ" in text
    assert "Doctor warned of backprop before the run" in text
    assert "lr: 3 copies had a loss that was not finite; they count as 0." in text
    ds = ds.isel(copies=[0, 4, 9, 19])
    assert "it was not tested whether the law holds" in "\n".join(gp.verdict(ds).sentences)


def test_against_the_data_a_ceiling_is_said_to_be_the_batchs_too() -> None:
    ds = make_run(np.random.default_rng(4), estimators={"lr": Truth(0.6, 5.0)})
    data = gp.verdict(ds.assign_coords(reference=["dataset"]), reference="dataset").sentences
    assert any("what this batch's own gradient lacks" in s for s in data)
    assert not any("own gradient lacks" in s for s in gp.verdict(ds).sentences)


def test_sentences_are_short_and_plain() -> None:
    """No brackets in brackets, none but intervals; words are explained once; fewest copies first."""
    truths = {m: truth for m, (truth, _) in TRUTH.items()} | {"better": Truth(0.99, 0.1 * N)}
    ds = make_run(np.random.default_rng(9), layers=WIDE, estimators=truths, products=True)
    found = gp.verdict(ds)
    text = "\n".join(found.lines)
    assert not re.search(r"[()]", text.replace("reference=('bp', 'smoothed')", ""))
    assert not re.search(r"\[[^]]*\[", text)
    assert all(len(part) < 160 for s in found.lines for part in re.split(r"[.;] ", s))
    (words,) = [s for s in found.lines if s.startswith("Words: ")]
    assert "good is a cosine above 0.9" in words
    assert found.lines == (*found.sentences, words)
    whole = found.table[found.table["over"] == "model"].set_index("method")
    good = [m for m in whole.index[whole["kind"] == kinds.GOOD]]
    (said,) = [s for s in found.sentences if s.startswith("In the whole model") and " good" in s]
    assert sorted(good, key=whole["needed"].get) == sorted(good, key=said.index)


@pytest.mark.parametrize(
    ("value", "low", "high"), [(816.0, 774.9, 861.0), (0.3, 0.1, 1.2), (99.6, 94.4, 104.9)]
)
def test_ends_of_copies_are_rounded_outwards(value: float, low: float, high: float) -> None:
    row = {"needed": value, "needed_low": low, "needed_high": high, "copies": 50}
    ends = re.search(r"\[(.+), (.+)\]", needed_text(row, 0.9))
    assert ends
    least, most = (float(x.replace(",", "")) for x in ends.groups())
    assert least <= max(low, 1.0)
    assert most >= high
    bound = needed_text(row | {"needed": np.nan, "needed_high": np.inf, "needed_low": 825.0}, 0.9)
    assert "more than 820 copies" in bound
