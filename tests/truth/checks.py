"""Checks that several test files share: the normal tests expect them to pass, the planted faults to fail."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Plain, make_family
from gradprobe.engine.preflight import agrees
from gradprobe.estimators.base import Estimator
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.bringing import own_layers
from gradprobe.estimators.centres import CENTRES
from gradprobe.estimators.draws import read_block, read_blocks
from gradprobe.estimators.perturbation import Perturbation
from gradprobe.estimators.readout import ReadOut
from gradprobe.layers.find import find_layers
from gradprobe.problems.problem import Problem
from tests.problems_small import build
from tests.truth import naive
from tests.truth.trace import Boom, snapshot

SEED = Streams(root=20240320, seed=5)
PLAIN = [name for name in NOISE.names() if isinstance(make_family(name), Plain)]
STRUCTURED = [name for name in NOISE.names() if name not in PLAIN]
READOUTS = {
    "activations": [
        ReadOut(c, e)
        for c, e in itertools.product(CENTRES.names(), ("exact", "sign", "sign-noise", "sign-input"))
    ],
    "weights": [ReadOut(c, e) for c, e in itertools.product(CENTRES.names(), ("exact", "sign"))],
}


def layers_of(problem: Problem) -> list[Layer]:
    return list(find_layers(problem).layers)


def served(estimator: Estimator, problem: Problem, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that an estimator does not refuse: of the model's, or of those that it brings for them."""
    own = own_layers(estimator, problem, layers)
    refused = estimator.refusals(problem, own)
    return [x for x in own if x.name not in refused]


def perturbation(draw: Draw, readout: ReadOut) -> Perturbation:
    return Perturbation(
        draw.where,
        draw.injection,
        draw.noise,
        draw.antithetic,
        draw.share,
        draw.sigma,
        readout.centre,
        readout.encode,
    )


def assert_same(
    got: Mapping[str, torch.Tensor], want: Mapping[str, torch.Tensor], rtol: float, label: str = ""
) -> None:
    """Each parameter agrees within ``rtol`` of the larger norm (or 1e-13, where losses cancel)."""
    assert set(got) == set(want), label
    for name, value in want.items():
        mine, theirs = got[name].detach().double(), torch.as_tensor(value).detach().double()
        assert mine.shape == theirs.shape, f"{label} {name}"
        size = max(float(mine.norm()), float(theirs.norm()))
        error = float((mine - theirs).norm())
        assert error <= rtol * size + 1e-13, f"{label} {name}: off by {error / size:.2e} of its norm"


def check_draw(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    copies: int = 4,
    rtol: float = 1e-9,
    block: int = 3,
    engines: Sequence[str] | None = None,
) -> int:
    """Every read-out of a draw, on every layer that takes it, by every engine, against the naive loop.

    Args:
        problem: The problem.
        draw: The draw.
        layers: Layers; those that a read-out is refused for are left out of it.
        copies: Copies in a block.
        rtol: Of each parameter's norm.
        block: Index of the block.
        engines: Those to try besides the loop, by default all that agree.

    Returns:
        How many directions were compared that are not 0.
    """
    compared = 0
    # ranks jump where rounding swaps two losses
    readouts = [r for r in READOUTS[draw.where] if rtol < 1e-8 or r.shaping.exact]
    readouts = [r for r in readouts if draw.independent or not r.shaping.whole]
    allowed = {r: {x.name for x in served(perturbation(draw, r), problem, layers)} for r in readouts}
    plain = [x for x in layers if x.name in allowed[ReadOut()]]
    if not plain:
        return 0
    here = Block(block, copies)
    for unit in [plain] if draw.injection == "joint" else [[x] for x in plain]:
        mine = [r for r in readouts if all(x.name in allowed[r] for x in unit)]
        want = naive.read(problem, draw, unit, mine, here, SEED)
        with problem.frozen():  # so that each forward is traced once
            tried = _engines(problem, draw, unit, engines)
            reading = Reading(problem, draw, unit, mine, SEED)
            reads = [read_block(reading, here, engine) for engine in tried]
        for engine, got in zip(tried, (read.directions for read in reads), strict=True):
            for readout, one, other in zip(mine, got, want, strict=True):
                assert_same(one, other, rtol, f"{draw} {readout} {engine} {[x.name for x in unit]}")
                compared += float(flat(other).norm()) > 1e-6
        # memory for two copies only; two blocks in one call
        if draw.noise == "rademacher":
            continue
        for engine, most in (("loop", 2), ("loop x8", None)):
            reads = read_blocks(reading, [block, block + 1], copies, engine, most)
            second = read_block(reading, Block(block + 1, copies), "loop")
            for got, wanted in zip(reads, (want, second.directions), strict=True):
                for one, other in zip(got.directions, wanted, strict=True):
                    assert_same(one, other, rtol, f"{draw} {engine} {most}")
    return compared


def _engines(problem: Problem, draw: Draw, unit: Sequence[Layer], wanted: Sequence[str] | None) -> list[str]:
    own = problem.loss_per == "sample" and all(x.credit == "sample" for x in unit)
    # a layer that builds its output from nothing has one row in a batch of one, and takes the loop
    engines = ["tile", "tile channels_last x2"] if problem.batch_size > 1 else ["auto"]
    engines = engines if own and draw.where == "activations" else []
    more = [
        "vmap",
        "vmap graph x2",
        "loop graph x2",
        "vmap graph channels_last",
        "loop graph channels_last x2",
    ]
    if wanted is not None:
        engines, more = [e for e in engines if e in wanted], [e for e in more if e in wanted]
    return ["loop", *engines, *(e for e in more if agrees(problem, draw, unit, e))]


@functools.cache
def known(name: str, dtype: torch.dtype = torch.float64) -> tuple[Problem, list[Layer]]:
    """A problem of the catalogue and its layers, built once: tests must not change it."""
    problem = build(name, dtype)
    return problem, layers_of(problem)


# --- statistics


def collect(
    estimator: Estimator,
    problem: Problem,
    layers: Sequence[Layer],
    blocks: int,
    copies: int,
    streams: Streams = SEED,
) -> torch.Tensor:
    """Block directions ``[K, D]``, all parameters of the layers in one row."""
    with problem.frozen():
        found = [estimator.directions(problem, layers, Block(k, copies), streams) for k in range(blocks)]
    names = [name for layer in layers for name in layer.parameters]
    return torch.stack([flat({name: each[name] for name in names}) for each in found])


def normal_quantile(tail: float) -> float:
    """z such that P(N(0,1) > z) = tail."""
    from scipy.stats import norm

    return float(norm.isf(tail))


def flat(directions: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All parameters as one float64 vector, in the order of the mapping."""
    return torch.cat([torch.as_tensor(v).detach().double().flatten() for v in directions.values()])


class MeanTest:
    """z-test that i.i.d. block directions ``[K, D]`` have a given mean; one look at a fixed K.

    Two statistics share the false-alarm rate: the largest |z| over coordinates (Bonferroni), and the z of the
    slope ``<B_k, g> / |g|^2`` against 1, which sees a scale fault soonest. Tails are Student's with K - 1
    degrees of freedom: a block is a mean over many copies, so blocks are close to normal.

    Attributes:
        slope: Mean slope on the expected mean.
        smallest: Smallest relative fault of scale that is seen with 99.9 % chance.
    """

    def __init__(self, blocks: torch.Tensor, expected: torch.Tensor, alarm: float = 1e-6) -> None:
        from scipy.stats import t

        count, size = blocks.shape
        deviation = blocks.std(0) / math.sqrt(count)
        live = deviation > 1e-12 * blocks.abs().amax(0).clamp_min(1e-30)
        safe = torch.where(live, deviation, 1.0)
        self.z = torch.where(live, (blocks.mean(0) - expected) / safe, 0.0)
        self.exact = bool(((blocks.mean(0) - expected)[~live].abs() <= 1e-9 * expected.norm()).all())
        self.limit = float(t.isf(alarm / 4 / size, count - 1))
        slopes = blocks @ expected / (expected @ expected)
        self.slope = float(slopes.mean())
        error = max(float(slopes.std() / math.sqrt(count)), 1e-12)
        self.slope_z = (self.slope - 1) / error
        self.slope_limit = float(t.isf(alarm / 4, count - 1))
        self.smallest = (self.slope_limit + normal_quantile(1e-3)) * error

    def check(self, sees: float) -> None:
        """The mean is as expected, and a fault of scale of size ``sees`` would have been seen."""
        assert self.smallest <= sees, f"a fault below {self.smallest:.3f} would be missed; {sees} is promised"
        assert self.exact, "a coordinate without variance is not what it should be"
        worst = float(self.z.abs().max())
        assert worst <= self.limit, f"|z| = {worst:.1f} in a coordinate; the limit is {self.limit:.1f}"
        assert abs(self.slope_z) <= self.slope_limit, (
            f"slope {self.slope:.4f} is {self.slope_z:.1f} errors from 1"
        )


# --- contract checks


def same_bits(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[k], other[k]) for k in one)


def check_key_components(numbers: Callable[[tuple], list[float]]) -> None:
    """Changing any one part of a stream's key changes its numbers."""
    base = (1, 2, "draw", "gaussian", "activations", "0", 0, 0)
    others = [
        (2, 2, "draw", "gaussian", "activations", "0", 0, 0),
        (1, 1, "draw", "gaussian", "activations", "0", 0, 0),
        (1, 2, "smoothed", "gaussian", "activations", "0", 0, 0),
        (1, 2, "draw", "laplace", "activations", "0", 0, 0),
        (1, 2, "draw", "gaussian", "weights", "0", 0, 0),
        (1, 2, "draw", "gaussian", "activations", "1", 0, 0),
        (1, 2, "draw", "gaussian", "activations", "0", 1, 0),
        (1, 2, "draw", "gaussian", "activations", "0", 0, 1),
        (2, 1, "draw", "gaussian", "activations", "0", 0, 0),
    ]
    found = [numbers(key) for key in (base, *others)]
    for i, j in itertools.combinations(range(len(found)), 2):
        assert not set(found[i]) & set(found[j]), f"keys {i} and {j} share numbers"


def check_keys_decide(
    estimator: Estimator, problem: Problem, layers: Sequence[Layer], copies: int = 4
) -> None:
    """Same key, same bits, whatever ran in between; another key differs if and only if stochastic."""
    keys = {
        "this": (Block(1, copies), Streams(3, 4)),
        "other root": (Block(1, copies), Streams(4, 4)),
        "other seed": (Block(1, copies), Streams(3, 5)),
        "other block": (Block(2, copies), Streams(3, 4)),
        "other purpose": (Block(1, copies), Streams(3, 4, "smoothed")),
    }
    found = {k: estimator.directions(problem, layers, *v) for k, v in keys.items()}
    again = estimator.directions(problem, layers, *keys["this"])
    assert same_bits(again, found.pop("this"))
    chance = estimator.stochastic and not _one_choice(estimator, layers)
    for label, other in found.items():
        assert same_bits(again, other) != chance, label


def _one_choice(estimator: Estimator, layers: Sequence[Layer]) -> bool:
    """Whether all noise is one sign and its opposite, which is the same whichever comes first."""
    draws = [draw for draw, _, _ in estimator.draws(layers)]
    signs = draws and all(d.noise == "rademacher" and d.antithetic and d.where == "weights" for d in draws)
    return bool(signs) and sum(x.numel for x in layers) == 1


def check_no_trace(estimator: Estimator, problem: Problem, layers: Sequence[Layer], copies: int = 4) -> None:
    """Nothing is left behind, in the user's module, in the problem or in global state."""
    before = snapshot(problem)
    try:
        estimator.directions(problem, layers, Block(0, copies), SEED)
    except Boom:
        pass
    after = snapshot(problem)
    for part, old in before.items():
        assert after[part] == old, f"{part} changed"


def check_forwards(estimator: Estimator, problem: Problem, layers: Sequence[Layer], copies: int = 4) -> None:
    """Once clean passes and the choice of an engine are known, a block costs what its copies cost."""
    with problem.frozen():
        estimator.directions(problem, layers, Block(0, copies), SEED)
        before = problem.forwards
        estimator.directions(problem, layers, Block(1, copies), SEED)
        counted = problem.forwards - before
    if layers:
        one, two = estimator.forwards(layers, copies), estimator.forwards(layers, 2 * copies)
        per_block = two - one if estimator.stochastic else one
        assert counted == per_block, f"{counted} forwards were run, {per_block} declared"
        assert one - per_block in (0, 1), "one clean pass at most"


# --- means


def linear_chain(samples: int) -> Problem:
    """y = W2 (W1 x + b1) + b2 with the squared error: quadratic in each layer, quartic in both."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Problem(
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double(),
            (torch.randn(samples, 2).double(), torch.randn(samples, 2).double()),
            "mse",
        )


def smoothed_chain(problem: Problem, where: str, injection: str, sigma: float) -> torch.Tensor:
    """Gradient of the smoothed loss of the linear chain, from its closed form.

    With independent noise of mean 0 and variance s^2, whatever its distribution, the expected loss is the loss
    without noise plus, for activations, ``s^2 |W2|^2/q + s^2`` and, for weights, ``s^2 |W2|^2 (|x|^2 + 1)/q +
    s^2 (|h|^2 + s^2 p (|x|^2 + 1) + 1)``. Layer by layer no term holds the layer's own weights.
    """
    p = {name: v.clone().requires_grad_() for name, v in problem.parameters.items()}
    x, y = problem.inputs, problem.target
    h = x @ p["0.weight"].T + p["0.bias"]
    loss = ((h @ p["1.weight"].T + p["1.bias"] - y) ** 2).mean(1)
    if injection == "joint" and where == "activations":
        loss = loss + sigma**2 * (p["1.weight"] ** 2).sum() / 2
    elif injection == "joint":
        size = (x**2).sum(1) + 1
        loss = loss + sigma**2 * (p["1.weight"] ** 2).sum() * size / 2 + sigma**2 * (h**2).sum(1)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), list(p.values()))])


def check_chain(
    where: str = "activations",
    injection: str = "layerwise",
    share: str = "sample",
    noise: str = "gaussian",
    samples: int = 32,
    copies: int = 1024,
    sees: float = 0.05,
) -> MeanTest:
    """LR or ES on the linear chain has the closed-form mean; 64 blocks, false alarm 1e-6."""
    problem = linear_chain(samples)
    layers = layers_of(problem)
    estimator = Perturbation(where, injection, noise, True, share, 0.4)
    expected = smoothed_chain(problem, where, injection, 0.4)
    test = MeanTest(collect(estimator, problem, layers, 64, copies), expected)
    test.check(sees)
    return test


def check_recurrence(injection: str = "layerwise", noise: str = "gaussian", sees: float = 0.06) -> MeanTest:
    """A layer called three times: v3 = w v2 + s e3, v2 = w v1 + s e2, v1 = w x + s e1.

    E v3^2 = w^6 x^2 + s^2 (w^4 + w^2 + 1): at w = 0.9 the part that only noisy inputs give is far above what
    the test sees.
    """

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.cell.weight, 0.9)

        def forward(self, x):
            return self.cell(self.cell(self.cell(x)))

    x, w, s = torch.linspace(-1, 1, 32).double()[:, None], 0.9, 0.5
    problem = Problem(Net().double(), (x, torch.zeros(32, 1).double()), "mse")
    estimator = Perturbation("activations", injection, noise, True, "sample", s)
    clean = 6 * w**5 * (x**2).mean()
    expected = (clean + s**2 * (4 * w**3 + 2 * w)).reshape(1)
    test = MeanTest(collect(estimator, problem, layers_of(problem), 64, 512), expected)
    assert abs(float(clean / expected) - 1) > 4 * test.smallest
    test.check(sees)
    return test
