# %% [markdown]
# # Write your own estimator in ten lines
#
# **Question.** You have an idea for a gradient estimator. Is it right? If it is not, is it biased, or only badly
# scaled? Both kinds of mistake are easy to make and hard to see in a training curve.

# %%
from dataclasses import dataclass

import torch
from torch import nn

import gradprobe as gp

COPIES = 200  # Monte-Carlo copies; more for large layers
SEEDS = 5  # independent repetitions

# %% [markdown]
# ## The idea
#
# SPSA (Spall 1992): shake all weights of a layer by ±σ at random, take the difference of the two losses, and
# multiply it by the signs. An estimator is a frozen dataclass: its fields are its options. `directions` returns the
# mean over the copies of a block, for each parameter. All its randomness comes from `streams`, whose key names the
# block, so that a run can be repeated and continued. (gradprobe has SPSA as `spsa`, all layers shaken at once; a name
# can be registered once, so this one is called `two-point`.)


# %%
@gp.register_estimator("two-point", summary="central differences along random signs", target="smoothed")
@dataclass(frozen=True)
class Spsa(gp.Estimator):
    """Simultaneous perturbation: (L(w + sigma v) - L(w - sigma v)) / (2 sigma) times random signs v."""

    sigma: float = 1e-3
    target = "smoothed"  # its mean is the gradient of the loss smoothed by the noise

    @torch.no_grad()
    def directions(self, problem, layers, block, streams):
        """Mean over the block's copies, layer by layer."""
        total = {}
        for layer in layers:
            rng = streams.generator("spsa", "weights", layer.name, 0, block.index)
            clean = {name: problem.parameters[name] for name in layer.parameters}
            for _ in range(block.copies):
                v = {name: self.signs(rng, w) for name, w in clean.items()}
                sides = [{n: w + s * v[n] for n, w in clean.items()} for s in (self.sigma, -self.sigma)]
                above, below = (problem.total(problem.evaluate(moved)) for moved in sides)
                for name in clean:
                    total[name] = total.get(name, 0) + self.slope(above, below) * v[name] / block.copies
        return total

    def signs(self, rng, weight):
        """Random signs, -1 or 1, like the weight."""
        return torch.as_tensor(rng.integers(0, 2, weight.shape) * 2 - 1).to(weight)

    def slope(self, above, below):
        """Slope of the loss along the signs."""
        return (above - below) / (2 * self.sigma)

    def forwards(self, layers, copies):
        """Forward passes that so many copies take: what results say of its cost."""
        return 2 * copies * len(layers)


# %% [markdown]
# ## The same with two slips of the pen
#
# The first takes bits for signs: 0 and 1 in place of -1 and 1. The second forgets the 2 in the difference.


# %%
@gp.register_estimator(
    "two-point-bits", summary="SPSA with a slip: bits in place of signs", target="smoothed"
)
@dataclass(frozen=True)
class Bits(Spsa):
    """Biased: the mean of v v^T is not a multiple of the identity."""

    def signs(self, rng, weight):
        """0 or 1: not what it should be."""
        return torch.as_tensor(rng.integers(0, 2, weight.shape)).to(weight)


@gp.register_estimator(
    "two-point-long", summary="SPSA with a slip: sigma in place of 2 sigma", target="smoothed"
)
@dataclass(frozen=True)
class Long(Spsa):
    """Twice too long, and in the right direction."""

    def slope(self, above, below):
        """Not what it should be."""
        return (above - below) / self.sigma


# %% [markdown]
# ## Probe them
#
# A network so small that hundreds of copies say much, in float64, where tiny differences of losses are safe.
# Registered names work everywhere: in `gp.probe`, `gp.plots`, `gp.plan`.

# %%
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3))
batch = (torch.randn(16, 8), torch.randint(0, 3, (16,)))
problem = gp.Problem(model, batch, loss="cross_entropy", precision="float64", name="small network")
ds = gp.probe(problem, ["two-point", "two-point-bits", "two-point-long", "es"], copies=COPIES, seeds=SEEDS)
gp.plots.similarity(ds)

# %% [markdown]
# ## The verdict
#
# In plain words, for this batch, with what cannot be told left open:

# %%
found = gp.verdict(ds)
found

# %%
kinds = found.table.set_index(["layer", "method"])["kind"]
assert kinds["0", "two-point-bits"] == "bias-limited"
assert "bias-limited" not in {
    *kinds.xs("two-point", level="method"),
    *kinds.xs("two-point-long", level="method"),
}

# %% [markdown]
# The numbers behind it are ceilings: the cosine with endlessly many copies. A right estimator has 1.

# %%
law = gp.stats.alignment(ds)
ends = ["ceiling", "ceiling_low", "ceiling_high"]
law[[*ends, "state"]].to_dataframe()[[*ends, "state"]].round(2)

# %% [markdown]
# In the first layer the bits are found out: their ceiling is far below 1, so no number of copies helps. In the last
# layer they are not, and rightly so. For bits v the mean of v vᵀ g is a quarter of g, plus a quarter of the *sum*
# of g in every weight; and the gradient of a cross entropy sums to zero over the classes of the last layer:

# %%
slopes = gp.estimate(problem, "bp")
for name in ("0.weight", "2.weight"):
    print(
        f"{name}: the gradient's sum is {abs(float(slopes[name].sum())):.6f}, its length {slopes[name].norm():.3f}."
    )
assert abs(float(slopes["2.weight"].sum())) < 1e-6

# %% [markdown]
# So look at every layer, and at more than one problem, before you believe in an estimator. The forgotten 2 shows
# nowhere so far: a cosine does not see lengths.
#
# ## What the gain says
#
# The gain is the length along the gradient, divided by the gradient's: 1 for a right estimator.

# %%
parts = ["gain", "gain_low", "gain_high"]
law[parts].to_dataframe()[parts].round(2)

# %%
for layer in law["layer"].values:
    right, wrong = (law["gain"].sel(layer=layer, estimator=e) for e in ("two-point", "two-point-long"))
    print(f"layer {layer}: two-point-long is {float(wrong / right):.3f} times as long as two-point.")
ratio = law["gain"].sel(estimator="two-point-long") / law["gain"].sel(estimator="two-point")
assert bool((abs(ratio - 2) < 1e-6).all())

# %% [markdown]
# The noise of the three is the same (the key does not name the estimator), so the ratio is exact. Alone, an
# estimator is told by its interval: it should hold 1.
#
# ## Is it any better than ES?
#
# For the whole model, paired over seeds: first at equally many copies, then at equally many forward passes. A copy
# of `two-point` takes two for each layer, and one of `es` takes one.

# %%
for at in ("copies", "forwards"):
    won = gp.stats.compare(ds, "two-point", "es", over="model", at=at)
    low, high = float(won["effect_low"]), float(won["effect_high"])
    told = "two-point is better" if low > 0 else "es is better" if high < 0 else "not told apart"
    print(f"equal {at}: cosine of two-point minus that of es [{low:+.2f}, {high:+.2f}]: {told}.")

# %% [markdown]
# ## Make it last
#
# Put the class into a file of its own in `gradprobe/estimators/`, and it is known to the command line, to the table
# of methods and to the **contract tests** (`tests/truth/test_contract.py`): the same bits again for the same key,
# other noise for other blocks and seeds, nothing left behind in the model. (It is thanks to them that `directions`
# above runs under `no_grad`. They also show that SPSA has no noise where a layer is a single weight.) A package of
# your own offers it through the entry point group `gradprobe.estimators`.
#
# **Next.** [What a sign costs](04_what_a_sign_costs.py).
