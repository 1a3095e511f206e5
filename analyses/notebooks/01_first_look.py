# %% [markdown]
# # First look at a checkpoint
#
# text

# %%
import gradprobe as gp
print(1)
