# %% [markdown]
# # What a sign costs
#
# **Question.** ALR keeps only the sign of the noise and the sign of the layer's input. That saves memory and
# multiplications. What does it cost in quality, and which of the two signs costs it?

# %%
import numpy as np

import gradprobe as gp

COPIES = 400  # Monte-Carlo copies; 4,000 resolves the early layers too
SEEDS = 5  # independent repetitions
LR, NOISE, INPUT, ALR = "lr", "lr(encode=sign-noise)", "lr(encode=sign-input)", "alr"

# %% [markdown]
# The two signs can be taken one at a time. All four read-outs use the same noise and the same forward passes: the
# run costs what `lr` alone costs, and comparisons are paired.

# %%
problem = gp.load_problem(checkpoint="trained", batch_size=16)
ds = gp.probe(problem, [LR, NOISE, INPUT, ALR, "hybrid", "a-hybrid"], copies=COPIES, seeds=SEEDS)
gp.plots.signs({"trained": ds})

# %% [markdown]
# **First row: bias.** The ceiling is the cosine that endlessly many copies reach. A bar without a mark: only bounds
# are known at this size.
#
# **Second row: price.** Copies needed for the same quality, relative to LR in the same layer. For Gaussian noise
# the sign alone carries 2/π of the information, so theory says π/2 ≈ 1.57 (dashed).

# %%
law = gp.stats.alignment(ds)
ratio = law["price"] / law["price"].sel(estimator=LR)
ratio.sel(estimator=[NOISE, INPUT, ALR]).to_pandas().round(2)

# %%
for method in (NOISE, INPUT, ALR):
    values = ratio.sel(estimator=method)
    print(
        f"{method}: {float(values.min()):.2f} to {float(values.max()):.2f} times LR's price over the layers."
    )
print(f"π/2 = {np.pi / 2:.2f}; the median over layers of the sign of the noise: ", end="")
print(f"{float(ratio.sel(estimator=NOISE).median()):.2f}")

# %% [markdown]
# The price of a layer is itself an estimate: where LR is far from the gradient after these copies, so is the ratio
# from its truth. `law["price_low"]` and `law["price_high"]` say how far.

# %%
for layer in law["layer"].values:
    cells = {method: law.sel(layer=layer, estimator=method) for method in (NOISE, INPUT, ALR)}
    known = {m: c for m, c in cells.items() if str(c["state"].values) == "resolved"}
    said = [f"{m} [{float(c['ceiling_low']):.2f}, {float(c['ceiling_high']):.2f}]" for m, c in known.items()]
    print(f"{layer}: ceilings {', '.join(said)}" if said else f"{layer}: no ceiling resolved at this size")

# %% [markdown]
# An interval that ends below 1 speaks for bias, which no copies remove; one that holds 1 says that this run could
# see none. One interval in twenty misses the truth: `gp.verdict(ds)` takes account of how many there are.
#
# **Third row: stability.** Sta. is the scatter of the cosine around a straight line. A curve that bends has a large
# Sta. without any noise: that share is filled in the figure. Smaller is not simply better, because a curve that
# stays low bends less.

# %%
sta, floor = gp.stats.stability(ds).mean("seed"), gp.stats.stability_floor(ds)
for method in ("hybrid", "a-hybrid"):
    share = np.minimum(1, (floor / sta).sel(estimator=method) ** 2)
    print(f"{method}: {float(share.min()):.0%} to {float(share.max()):.0%} of Sta.² is curvature.")

# %% [markdown]
# **Next.** [Trajectories](05_trajectories.py): does a biased direction lead somewhere else?
