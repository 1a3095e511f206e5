# %% [markdown]
# # Trajectories
#
# **Question.** A direction can be noisy or biased and still lead to the minimum. How do estimators *walk* where the
# landscape is known, and is a difference between two of them real or the luck of one path?

# %%
import gradprobe as gp

SEEDS = 20  # walkers of each method; 100 for work
STEPS = 300  # of each walker
COPIES = 16  # in each step

# %% [markdown]
# Beale's function: a narrow curved valley, one minimum at (3, 0.5). Every method gets the best learning rate of a
# grid, found on noise of its own, because methods differ in the length of what they return: one rate for all would
# compare step sizes.

# %%
path = gp.descend(
    "beale", ["bp", "lr", "alr"], start=(1, 1), steps=STEPS, optimizer="adam", copies=COPIES, seeds=SEEDS
)
gp.plots.trajectory(path)

# %% [markdown]
# Left: paths on the contours of the function. Right: loss against forward evaluations. One path says little: with
# the same settings and other noise it may go elsewhere. So count walkers.

# %%
arrived = gp.stats.success(path, stay=True)
for method in path["estimator"].values:
    cell = arrived.sel(estimator=method)
    ends = f"[{float(cell['rate_low']):.0%}, {float(cell['rate_high']):.0%}]"
    print(f"{method}: {float(cell['rate']):.0%} of {SEEDS} walkers reach the minimum and stay {ends}.")

# %% [markdown]
# ## Is ALR better than LR here?
#
# Walkers with the same seed saw the same noise, so methods are compared in pairs. Three questions, each with an
# interval: who stays at the minimum more often, who gets there earlier, who ends lower.

# %%
better = gp.stats.difference(path, "alr", "lr", stay=True)
for name in ("success", "earlier", "lower"):
    low, high = float(better[f"{name}_low"]), float(better[f"{name}_high"])
    told = "for ALR" if low > 0 else "for LR" if high < 0 else "not told apart"
    print(f"{name}: {float(better[name]):+.0%} [{low:+.0%}, {high:+.0%}], {told}.")

# %% [markdown]
# This is one start and one optimiser. What holds here need not hold elsewhere: `analyses/beale_trajectories.py`
# asks for other starts and rules, and the answer changes with them.
#
# ## Where do they want to go?
#
# With ever smaller steps a walker follows the *mean* of its estimator. `gp.field` computes that mean without
# sampling, and where it vanishes. With little noise the zeros are the function's; here sigma is large.

# %%
SIGMA = 0.5
field = gp.field("beale", ["lr", "alr"], sigma=SIGMA, points=9)
gp.plots.fields(field)

# %%
target = field["minimum_position"].values[0]
stable = field["zero_position"].where(field["stable"] & ~field["boundary"], drop=True)
print(f"The minimum is at ({target[0]:g}, {target[1]:g}).")
for zero in stable.transpose("zero", "coordinate"):
    x, y = zero.values
    print(f"{zero['zero_field'].values}: walkers can stop at ({x:.2f}, {y:.2f}).")
far = abs(stable - target).max("coordinate")
assert float(far.where(stable["zero_field"] == "gradient").min()) < 1e-3
assert float(far.where(stable["zero_field"] != "gradient").min()) > 0.5

# %% [markdown]
# At this sigma neither LR nor ALR has a stable zero near the minimum: noise of that size sees a smoothed landscape,
# which has its valleys elsewhere. No number of copies mends that; a smaller sigma does.
#
# **Next.** [Choose a hybrid](06_choose_a_hybrid.py).
