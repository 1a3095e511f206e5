"""Signs in bits or bytes are those of the numbers, and change no estimate by a single bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.signs import Signs, bytes_kept, opened, signs_of
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block
from gradprobe.estimators.readout import ReadOut, refusal
from gradprobe.probes.checks import layers_of
from gradprobe.problems.problem import Problem
from tests.problems_small import CATALOGUE, build

SEED = Streams(0, 3)
PACKED = ("int8", "bits")


def _numbers() -> dict[str, torch.Tensor]:
    x = torch.randn(5, 3, 37, generator=torch.Generator().manual_seed(0))
    few = torch.randn(4, 5000, generator=torch.Generator().manual_seed(1))
    few[1, ::700] = 0.0
    few[3, -1] = -0.0
    return {
        "no zeros": x,
        "no negatives": x.relu(),
        "no positives": -x.relu(),
        "many zeros": x.round(),
        "few zeros": few,
        "nothing but zeros": torch.zeros(3, 5),
        "float64": x.double(),
        "infinite": x / 0.0,
        "one number": torch.ones(1),
        "channels last": torch.randn(3, 2, 5, 4, 6).permute(0, 1, 4, 2, 3),
        "another axis slowest": torch.randn(4, 9).t(),
    }


@pytest.mark.parametrize("storage", PACKED)
@pytest.mark.parametrize("which", _numbers())
def test_what_comes_back_is_the_sign(which: str, storage: str) -> None:
    x = _numbers()[which]
    kept = signs_of(x, storage)
    assert isinstance(kept, Signs)
    found = opened(kept)
    assert torch.equal(found, torch.sign(x))
    assert (found.dtype, found.stride()) == (x.dtype, x.stride())
    if which != "another axis slowest":
        for start in range(len(x)):
            assert torch.equal(opened(kept[start:]), torch.sign(x[start:]))
            assert torch.equal(opened(kept[start:][:1]), torch.sign(x[start : start + 1]))


def test_the_bits_are_where_numpy_puts_them() -> None:
    x = _numbers()["no zeros"]
    kept = signs_of(x, "bits")
    assert isinstance(kept, Signs)
    want = np.packbits(x.numpy().ravel() > 0, bitorder="little")
    assert np.array_equal(kept.planes[0].numpy(), want)


def test_what_it_takes() -> None:
    numbers = _numbers()
    size = numbers["no zeros"].numel()
    byte, bit = size, -(-size // 8)
    assert bytes_kept([signs_of(numbers["no zeros"], "int8")]) == (byte, 4 * size)
    for which in ("no zeros", "no negatives", "no positives"):
        assert bytes_kept(signs_of(numbers[which], "bits")) == (bit, 4 * size)
    assert bytes_kept(signs_of(numbers["many zeros"], "bits")) == (2 * bit, 4 * size)
    few = numbers["few zeros"]
    assert bytes_kept(signs_of(few, "bits")) == (few.numel() // 8 + 8 * 9, 4 * few.numel())


def test_what_has_no_sign_is_kept_as_it_is() -> None:
    x = torch.tensor([1.0, torch.nan])
    assert signs_of(x, "bits") is x


READOUTS = {
    "sign": [ReadOut("clean", "sign")],
    "sign-noise": [ReadOut("clean", "sign-noise")],
    "sign-input": [ReadOut("none", "sign-input")],
    "both": [ReadOut("clean", "sign"), ReadOut("mean", "sign")],
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_estimate_changes_by_a_bit(name: str) -> None:
    problem = build(name, torch.float32)
    layers = layers_of(problem)
    for injection, where, which in (
        ("joint", "activations", "sign"),
        ("joint", "activations", "sign-noise"),
        ("joint", "activations", "sign-input"),
        ("layerwise", "activations", "both"),
        ("layerwise", "weights", "both"),
    ):
        draw, readouts = (
            Draw(where, injection, share="batch" if where == "weights" else "sample"),
            READOUTS[which],
        )
        served = [x for x in layers if not any(refusal(problem, x, draw, r) for r in readouts)]
        for unit in ([served] if injection == "joint" else [[x] for x in served]) if served else []:
            plain, *packed = (
                read_block(Reading(problem, draw, unit, readouts, SEED, storage=storage), Block(1, 4))
                for storage in ("float32", *PACKED)
            )
            for read in packed:
                for mine, want in zip(read.directions, plain.directions, strict=True):
                    assert all(torch.equal(mine[p], want[p]) for p in want), (which, injection, where)
                assert read.bytes[1] == plain.bytes[1]
                assert (read.bytes[0] < plain.bytes[0]) or which == "sign-input"


def images() -> Problem:
    """Each kind of layer whose inputs can be signs, in float32."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4)),
    ).eval()
    return Problem(module, (torch.randn(4, 2, 6, 6), torch.arange(4)))


@pytest.mark.parametrize("engine", ["loop", "tile", "vmap"])
def test_probes_record_a_quarter_and_a_32nd(engine: str) -> None:
    """Of a layer's noise, of all layers' under joint injection with the inputs it makes noisy, of weights' noise."""
    problem = images()
    for method in ("alr", "alr(injection=joint)", "aes(injection=joint)", "lr(noise=laplace)"):
        plain, byte, bit = (
            gp.probe(problem, method, copies=8, block=4, seeds=1, storage=storage, engine=engine)
            for storage in ("float32", *PACKED)
        )
        for ds, least in ((plain, 1.0), (byte, 4.0), (bit, 31.9)):
            for moment in ("dot", "sqnorm", "block_sqnorm", "plain_bytes"):
                assert np.array_equal(ds[moment], plain[moment], equal_nan=True), (method, moment)
            kept, numbers = (ds[name].sum(("parameter", "seed")) for name in ("kept_bytes", "plain_bytes"))
            assert (numbers >= least * kept).all()
            assert (numbers <= 32 * kept).all()


def test_the_bytes_are_those_of_noise_and_noisy_inputs() -> None:
    problem, samples = images(), 4
    noise = np.array([8 * 36, 8 * 16, 8 * 16, 16, 16, 4])  # outputs of the layers with parameters
    inputs = np.array([8 * 36, 8 * 16, 128, 16, 16])  # inputs of all of these but the first
    alone = gp.probe(problem, "alr", copies=4, block=4, seeds=1)
    assert alone["plain_bytes"].groupby("layer").sum().sel(layer=["0", "9"]).values.ravel().tolist() == [
        4 * samples * noise[0],
        4 * samples * noise[-1],
    ]
    joint = gp.probe(problem, "alr(injection=joint)", copies=4, block=4, seeds=1)
    assert float(joint["plain_bytes"].sum()) == 4 * samples * (noise.sum() + inputs.sum())


@pytest.mark.parametrize("injection", ["layerwise", "joint"])
def test_bits_can_wait_for_the_losses_of_a_whole_block(injection: str) -> None:
    """With memory for two copies a centre that needs every loss runs the block twice, unless signs of all fit."""
    problem, copies = images(), 24
    draw, readouts = Draw(injection=injection), [ReadOut("mean", "sign")]
    unit = layers_of(problem)[: None if injection == "joint" else 1]
    found, forwards = {}, {}
    for storage in ("float32", "bits"):
        reading = Reading(problem, draw, unit, readouts, SEED, storage=storage)
        with problem.frozen():
            read_block(reading, Block(0, copies), "loop", 2)  # what is looked at once
            before = problem.forwards
            found[storage] = read_block(reading, Block(1, copies), "loop", 2).directions[0]
            forwards[storage] = problem.forwards - before
    assert forwards == {"float32": 2 * copies, "bits": copies}
    assert all(torch.equal(found["bits"][p], found["float32"][p]) for p in found["bits"])


def test_a_draw_that_lr_reads_too_is_kept_as_numbers() -> None:
    ds = gp.probe(images(), ["alr", "lr"], copies=4, block=4, seeds=1, layers="9", storage="bits")
    assert (ds["kept_bytes"] == ds["plain_bytes"])[:, -2:].all()


def test_finished_updates_take_what_their_copies_take() -> None:
    methods = ["alr", "sign(alr, copies=2)", "sign(fa)"]
    ds = gp.probe(images(), methods, copies=4, block=4, seeds=1, layers="9", storage="bits")
    kept, plain = (ds[name].isel(seed=0).values for name in ("kept_bytes", "plain_bytes"))
    assert (kept[1] == kept[0]).all()
    assert (plain[1] == plain[0]).all()
    assert np.isnan(kept[2]).any()
    assert not (kept[2] > 0).any()


def test_estimate_gives_the_same_direction() -> None:
    problem = images()
    want = gp.estimate(problem, "alr(injection=joint)", copies=4)
    found = gp.estimate(problem, "alr(injection=joint)", copies=4, storage="bits")
    assert all(torch.equal(found[p], want[p]) for p in want)


def test_another_word_is_refused() -> None:
    with pytest.raises(gp.UsageError, match="storage"):
        gp.estimate(images(), "alr", copies=4, storage="int4")
    with pytest.raises(gp.UsageError, match="storage"):
        gp.probe(images(), "alr", copies=10, storage="bit")
