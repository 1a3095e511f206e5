"""On a GPU: the same numbers as on the CPU for the same noise, and noise of its own. Skipped without one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import gradprobe as gp
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import make_noise
from gradprobe.engine.noise import NOISE
from gradprobe.engine.parts import Part
from gradprobe.engine.tiles import device_key, unit_noise
from gradprobe.probes.checks import layers_of
from tests.problems_tiny import classifier
from tests.truth.checks import PLAIN, STRUCTURED

HERE = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HERE, reason="there is no GPU")
SMALL = {"copies": 40, "block": 8, "seeds": 2, "sigma": 0.1}
METHODS = ["lr", "alr", "es", "lr(injection=joint)", "lr(centre=mean, antithetic=True)"]


def test_keys_of_copies_differ_in_seed_and_offset() -> None:
    keys = {device_key(key, copy) for key in range(100) for copy in range(100)}
    assert len(keys) == len({seed for seed, _ in keys}) == len({offset for _, offset in keys}) == 10_000
    assert all(0 <= seed < 2**64 and offset % 4 == 0 and offset < 2**60 for seed, offset in keys)


@pytest.mark.skipif(HERE, reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_sentence() -> None:
    for device in ("cuda", "cuda:3", "gpu", "meta"):
        with pytest.raises(gp.UsageError, match=f"there is no device '{device}'.*it has cpu"):
            gp.probe(classifier(), "lr", device=device, **SMALL)
    assert (gp.probe(classifier(), "lr", device="cpu", **SMALL)["status"] == "ok").all()
    with pytest.raises(gp.UsageError, match="unknown noise_on"):
        gp.probe(classifier(), "lr", noise_on="gpu", **SMALL)


@needs_gpu
def test_noise_of_the_cpu_gives_the_numbers_of_the_cpu() -> None:
    cpu = gp.probe(classifier(), METHODS, noise_on="cpu", **SMALL)
    gpu = gp.probe(classifier(), METHODS, device="cuda", noise_on="cpu", **SMALL)
    for name in ("dot", "sqnorm", "block_sqnorm"):
        assert np.allclose(gpu[name], cpu[name], rtol=1e-2, atol=1e-4 * float(np.abs(cpu[name]).max()))


@needs_gpu
@pytest.mark.parametrize("engine", ["tile", "vmap", "loop graph", "vmap graph x16"])
def test_engines_agree_on_the_device(engine: str) -> None:
    loop = gp.probe(classifier(), METHODS, device="cuda", engine="loop", **SMALL)
    other = gp.probe(classifier(), METHODS, device="cuda", engine=engine, **SMALL)
    for name in ("dot", "sqnorm"):
        assert np.allclose(other[name], loop[name], rtol=1e-2, atol=1e-4 * float(np.abs(loop[name]).max()))


@needs_gpu
@pytest.mark.parametrize("name", PLAIN)
def test_noise_on_the_device(name: str) -> None:
    """Parts of a block, other copies, and the distribution (false alarms 1e-6)."""
    family, device = NOISE.get(name)(), torch.device("cuda", torch.cuda.current_device())
    whole = unit_noise(family, 7, (1000,), range(64), device)
    parts = [unit_noise(family, 7, (1000,), range(k, k + 16), device) for k in range(0, 64, 16)]
    assert torch.equal(torch.cat(parts), whole)
    x = whole.double().cpu().numpy().ravel()
    assert abs(x.mean()) < 5 / math.sqrt(x.size)
    cdf = {"gaussian": stats.norm.cdf, "laplace": stats.laplace(scale=math.sqrt(0.5)).cdf}.get(name)
    assert set(np.unique(x)) == {-1.0, 1.0} if cdf is None else stats.kstest(x, cdf).pvalue > 1e-6


@needs_gpu
@pytest.mark.parametrize("noise", STRUCTURED)
def test_noise_with_a_view_of_shapes_on_the_device(noise: str) -> None:
    """Parts of a block, and the variance; Sobol's points are made on the CPU."""
    problem = classifier().to("cuda")
    layers, draw = layers_of(problem), Draw("weights", noise=noise, share="batch")
    whole = make_noise(problem, draw, layers[:1], Block(0, 4096), Streams(0, 0))
    parts = [Part(0, range(k, k + 1024)) for k in range(0, 4096, 1024)]
    for site, eps in make_noise(problem, draw, layers[:1], parts, Streams(0, 0)).items():
        assert eps.device.type == "cuda"
        assert torch.equal(eps, whole[site])
        assert abs(float(eps.var()) - 1) < 0.2


@needs_gpu
def test_the_model_stays_where_it_is_and_the_run_names_the_gpu() -> None:
    problem = classifier()
    ds = gp.probe(problem, "lr", device="cuda", **SMALL)
    assert all(p.device.type == "cpu" for p in problem.module.parameters())
    assert torch.cuda.get_device_name() in str(ds.attrs["identity"])
    assert (ds["peak_bytes"].sum("parameter") > 0).all()


@needs_gpu
def test_workers_take_a_device_each() -> None:
    one = gp.probe(classifier(), "lr", device="cuda", **SMALL)
    two = gp.probe(classifier(), "lr", device="cuda", workers=2, **SMALL)
    assert np.allclose(one["dot"], two["dot"], rtol=1e-3, atol=1e-6)
    assert layers_of(classifier().to("cuda"))
    direction = gp.estimate(classifier().to("cuda"), "lr", copies=20)
    assert all(d.device.type == "cuda" for d in direction.values())
