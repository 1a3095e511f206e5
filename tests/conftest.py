"""Settings of all tests: one thread, so that they cost the same beside other work."""

import torch

torch.set_num_threads(1)
