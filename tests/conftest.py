"""Settings of all tests: one thread, here and in what they start, so that they cost the same beside other work."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
