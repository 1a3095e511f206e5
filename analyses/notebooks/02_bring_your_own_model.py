# %% [markdown]
# # Bring your own model
#
# **Question.** You have a module, a checkpoint file and data of your own. What has to be done before gradprobe can
# look at them, and how do you know that it looked at the right thing?

# %%
import tempfile
from pathlib import Path

import torch
from torch import nn

import gradprobe as gp

COPIES = 200  # Monte-Carlo copies; 1,000 and more for work
SEEDS = 5  # independent repetitions
STEPS = 150  # of training, so that there is something to load
FOLDER = tempfile.TemporaryDirectory()

# %% [markdown]
# ## A model, data, and a checkpoint
#
# Two spirals, and a network that tells them apart. The training loop is the usual one; it writes the kind of file
# that such loops write, with the weights under a key and `module.` before each name, as `DataParallel` leaves them.


# %%
class Spirals(nn.Module):
    """Two classes of points in the plane."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 2)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, 2]`` of points ``[B, 2]``."""
        hidden = torch.tanh(self.norm(self.first(points)))
        return self.last(torch.tanh(self.second(hidden)))


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many noisy points and their classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 2
    angle = 4 * torch.rand(count, generator=generator) + torch.pi * y
    radius = 0.3 + (angle - torch.pi * y) / 4
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return x + 0.05 * torch.randn(x.shape, generator=generator), y


# %%
x, y = spirals(256)
torch.manual_seed(0)
model = Spirals()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(STEPS):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
right = (model.eval()(x).argmax(1) == y).float().mean()
file = Path(FOLDER.name) / "spirals.pt"
torch.save({"step": STEPS, "model": {f"module.{k}": v for k, v in model.state_dict().items()}}, file)
print(f"{right:.0%} of the training points are right; wrote {file.name}.")

# %% [markdown]
# ## Load it
#
# `gp.load_checkpoint` finds the weights in the file, takes the prefix off, and loads all of them or nothing. What
# it did comes back, and is kept with the results. No code in the file is run.

# %%
model = Spirals()
facts = gp.load_checkpoint(model, file)
print({name: facts[name] for name in ("checkpoint", "checkpoint_key", "checkpoint_stripped")})

# %% [markdown]
# A file that does not fit is an error of one sentence, and nothing is loaded:

# %%
try:
    gp.load_checkpoint(Spirals(width=8), file)
except gp.CheckpointError as error:
    print(error)

# %% [markdown]
# ## Make it a problem, and ask the doctor
#
# `loss` is a name, or a function of (output, target) that returns one loss for each sample. The model is run in
# eval mode on a twin, so weights, buffers and flags stay as they are.

# %%
batch = (x[:32], y[:32])
problem = gp.Problem(model, batch, loss="cross_entropy", name="spirals", facts=facts)
gp.doctor(problem)

# %% [markdown]
# What if the model ran as it does in training? Batch normalisation then mixes the samples of a batch, so a sample's
# noise moves the others' losses too. The doctor notices:

# %%
training = gp.Problem(Spirals().train(), batch, loss="cross_entropy", mode="as-is")
for finding in gp.doctor(training).warnings:
    print(f"{finding.check}: {finding.sentence}")
assert not gp.doctor(training).ok

# %% [markdown]
# ## Probe: before and after training
#
# The same network with random weights, and with those of the file.

# %%
torch.manual_seed(1)
fresh = gp.Problem(Spirals(), batch, loss="cross_entropy", name="spirals, untrained")
runs = {"untrained": gp.probe(fresh, ["lr", "alr", "es"], copies=COPIES, seeds=SEEDS)}
runs["trained"] = gp.probe(problem, ["lr", "alr", "es"], copies=COPIES, seeds=SEEDS)
gp.plots.similarity(runs["trained"])

# %%
for name, ds in runs.items():
    whole = gp.stats.cosine(ds, over="model").sel(copies=COPIES).mean("seed").to_pandas()
    print(f"{name}: " + ", ".join(f"{method} {value:.2f}" for method, value in whole.items()))

# %% [markdown]
# The numbers belong to this batch and this checkpoint: a method that is good before training need not be good after
# it.
#
# The facts of the checkpoint are in the run, so it can be told later what was looked at:

# %%
print(runs["trained"].attrs["problem"], facts["checkpoint_sha256"][:16])
FOLDER.cleanup()

# %% [markdown]
# **Next.** [An estimator of your own](03_write_your_own_estimator.py).
