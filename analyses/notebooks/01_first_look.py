# %% [markdown]
# # First look at a checkpoint
#
# **Question.** You have a trained network. How good would its gradient be if it were estimated from forward passes
# alone, layer by layer? And where it is poor: would more copies help, or would no number of them?
#
# Three methods are held against backprop: `lr` (likelihood ratio: noise on a layer's output), `alr` (its
# sign-encoded approximation) and `es` (evolution strategies: noise on the weights).

# %%
import gradprobe as gp

COPIES = 200  # Monte-Carlo copies of each estimate
SEEDS = 5  # independent repetitions

# %% [markdown]
# The settings are small, so that this takes seconds. With `COPIES = 1000` more is resolved.
#
# A *problem* is a model, a batch of data and a loss. This one ships: ResNet-5, trained on handwritten digits, and a
# batch of 16 of them. The next notebook brings its own.

# %%
problem = gp.load_problem(checkpoint="trained", batch_size=16)
print(problem.name, "on", problem.batch_size, "samples, loss", round(float(problem.clean_losses().mean()), 4))

# %% [markdown]
# ## Can the numbers be trusted?
#
# `doctor` looks for what makes estimates silently wrong: a forward that is random, samples that are coupled, noise
# that is too small for the precision. Every line should say *ok*.

# %%
found = gp.doctor(problem)
assert found.ok
found

# %% [markdown]
# ## Probe
#
# A run stores moments, not directions, so it is small, and every statistic and figure below is computed from it
# without the model. `out="runs/first"` would keep it on disk. The second reference is backprop averaged over the
# noise: what smoothing alone costs is then known too.

# %%
references = ["bp", "smoothed"]
ds = gp.probe(
    problem, ["lr", "alr", "es"], copies=COPIES, seeds=SEEDS, reference=references, reference_copies=16
)
gp.plots.similarity(ds)

# %% [markdown]
# One panel for each layer, and the whole model. Left to right: more copies. Height: cosine between the estimate and
# backprop, 1 is perfect. The band is the 95 % interval over seeds, and all of it is for this batch.

# %%
cosine = gp.stats.cosine(ds).sel(copies=COPIES).mean("seed")
cosine.to_pandas().round(2)

# %%
for method in ("lr", "alr", "es"):
    mine = cosine.sel(estimator=method).to_pandas()
    print(
        f"{method}: after {COPIES} copies best in {mine.idxmax()} ({mine.max():.2f}), "
        f"worst in {mine.idxmin()} ({mine.min():.2f})."
    )

# %%
best = {str(layer): str(cosine.sel(layer=layer).idxmax().values) for layer in ds["layer"].values}
print("Best method of each layer:", best)
assert len(set(best.values())) > 1

# %% [markdown]
# No method is best in all layers. This is why gradprobe looks at layers, and why mixing methods can pay ([notebook
# 6](06_choose_a_hybrid.py)).
#
# ## Noise or bias?
#
# A cosine of n copies follows cos(n) = ceiling · sqrt(n / (n + κ)). Where the **ceiling** is 1, more copies get
# there; where it is below 1, none do: that is bias. **κ** (`half_copies`) says how many copies make cos² half of
# what it can be. Only a cell whose `state` is *resolved* has a ceiling: elsewhere the run is too small to tell, and
# says so.

# %%
law = gp.stats.alignment(ds)
law["ceiling"].to_pandas().round(2)

# %%
for method in ("lr", "alr", "es"):
    mine = law.sel(estimator=method)
    states = mine["state"].to_pandas()
    known = list(states.index[states == "resolved"])
    print(f"{method}: the ceiling is resolved in {', '.join(known) if known else 'no layer'}.")
    for layer in known:
        cell = mine.sel(layer=layer)
        low, high = float(cell["ceiling_low"]), float(cell["ceiling_high"])
        print(f"   {layer}: {float(cell['ceiling']):.2f} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# An interval that ends below 1 speaks for bias. But one interval in twenty misses the truth, and here many are
# looked at: a ceiling of `lr` a little below 1 may be chance, because its mean is the gradient but for the
# smoothing. The verdict below takes account of how often it looked.
#
# The same as bars: what is missing to a cosine of 1, and what it is made of. Where noise and bias cannot be told
# apart yet, the bar says so.

# %%
gp.plots.noise_or_bias(ds, copies=COPIES)

# %% [markdown]
# ## In plain words
#
# `gp.verdict` says what the run shows beyond doubt, and names what it leaves open: with five seeds and few copies
# that is much. A cosine of 0.9 is asked for; `gp.verdict(ds, cosine=0.5)` asks for less.

# %%
gp.verdict(ds)

# %% [markdown]
# **Next.** [Your own model](02_bring_your_own_model.py). From a shell, the same is `gradprobe probe --checkpoint
# trained --estimators lr,alr,es --copies 200 --out runs/first`, then `gradprobe report runs/first`.
