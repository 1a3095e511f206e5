# %% [markdown]
# # Choose a hybrid
#
# **Question.** No method is best in every layer. Which one should serve which layer, with how many copies each, so
# that the whole gradient reaches a cosine of 0.6 at the least cost? And does the plan keep its promise?

# %%
import gradprobe as gp

COPIES = 200  # Monte-Carlo copies of the run that decides; 1,000 for work
SEEDS = 5  # independent repetitions
TARGET = 0.6  # cosine of the whole model with backprop

# %% [markdown]
# ## A run to decide from
#
# One run of all candidates. `hybrid` is ES in the first two layers and LR after them; it reads the noise of `es`
# and `lr`, so it costs nothing more.

# %%
problem = gp.load_problem(checkpoint="trained", batch_size=16)
candidates = ["lr", "es", "hybrid"]
ds = gp.probe(problem, candidates, copies=COPIES, seeds=SEEDS, reference=["bp", "smoothed"])
gp.plots.cost(ds, against="equivalents")

# %% [markdown]
# Cost is counted in *equivalents*: whole forward passes' worth of arithmetic that depends on the noise. A copy for
# the last layer is nearly free, one for the first costs a whole pass.

# %%
price = gp.stats.cost(ds)["equivalents"]
price.to_pandas().round(3)

# %% [markdown]
# ## The same method everywhere?
#
# The frontier says which single method is best at which cost, for the whole model, where every layer gets equally
# many copies.

# %%
best = gp.stats.frontier(ds, over="model")
for method in candidates:
    low, high = (float(best[name].sel(estimator=method)) for name in ("leads_from", "leads_to"))
    print(
        f"{method}: best nowhere"
        if low != low
        else f"{method}: best from {low:.0f} to {high:.0f} equivalents"
    )
share = float(best["resolved"].mean())
print(f"The lead is certain at {share:.0%} of the costs.")

# %% [markdown]
# Where the lead is not certain, ask layer by layer, paired over seeds and at equal cost. The interval is for one
# layer alone; a method counts as better only where that holds when all layers are asked at once (Holm's
# correction).

# %%
won = gp.stats.compare(ds, "hybrid", "lr", at="equivalents")
for layer in won["layer"].values:
    cell = won.sel(layer=layer)
    low, high = float(cell["effect_low"]), float(cell["effect_high"])
    better = str(cell["better"].values) or ("the same" if low == high == 0 else "not told apart")
    print(f"{layer}: hybrid minus lr [{low:+.2f}, {high:+.2f}]: {better}")

# %% [markdown]
# ## The cheapest mapping
#
# `gp.plan` looks among all mappings of layers to methods, with copies of its own for each layer.

# %%
plan = gp.plan(ds, cosine=TARGET)
print(plan)

# %%
for rival in plan.rivals:
    if rival.equal:
        equal, shares = rival.equal / plan.cost, rival.best / plan.cost
        print(
            f"{rival.method}: {equal:.2f} times the plan's cost with equal copies, {shares:.2f} with its best shares."
        )
assert all(rival.best >= plan.cost * 0.98 for rival in plan.rivals if rival.best)

# %% [markdown]
# What the second number leaves to gain is the mapping's; the rest is in the *shares*, which any method can have.
#
# ## Does it keep its promise?
#
# A plan is an estimator like any other. One copy of it is one whole estimate, with noise that the plan has not
# seen.

# %%
kept = gp.probe(problem, [plan], copies=1, seeds=SEEDS)
measured = gp.stats.bands(gp.stats.cosine(kept, over="model").sel(copies=1)).isel(estimator=0)
print(f"predicted {plan.cosine:.3f} [{plan.low:.3f}, {plan.high:.3f}]")
print(
    f"measured  {float(measured['mean']):.3f} [{float(measured['low']):.3f}, {float(measured['high']):.3f}]"
)

# %% [markdown]
# If the two intervals do not meet, the run that decided was too small: give it more copies. In training code one
# such estimate is `gp.estimate(problem, plan, seed=step)`, and it has the form of a gradient:

# %%
direction = gp.estimate(problem, plan, seed=100)
print({name: tuple(d.shape) for name, d in direction.items()})

# %% [markdown]
# The plan is for this checkpoint and batch. As training goes on, prices move: `gradprobe plan RUN --out plan.json`
# keeps one, and it is worth a new look at a later checkpoint.
