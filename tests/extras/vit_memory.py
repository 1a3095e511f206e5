"""Memory of a probe of a ViT of twelve layers; run as a program with a budget, prints MiB as JSON."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path

import torch
import transformers

import gradprobe as gp
from gradprobe.engine import memory
from gradprobe.probes.checks import layers_of
from tests.problems_tiny import classifier


def resident(which: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (most since it was forgotten)."""
    return int(re.search(which + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(budget: str) -> None:
    torch.set_num_threads(1)
    gp.probe(classifier(), ["lr", "es"], copies=4, block=2, seeds=1)  # what is imported on use is there
    forget, memory._forget_peak = memory._forget_peak, lambda: None  # units would forget the peaks of others
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=192,
        num_attention_heads=3,
        num_hidden_layers=12,
        intermediate_size=384,
        image_size=32,
        patch_size=4,
        num_labels=10,
    )
    model = transformers.ViTForImageClassification(config).eval()
    x, y = torch.randn(2, 3, 32, 32), torch.arange(2)
    gc.collect()
    forget()
    start = resident("VmRSS")
    loss = torch.nn.functional.cross_entropy(model(x).logits, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    del loss, gradients
    clean = resident("VmHWM") - start
    began = time.perf_counter()
    problem = gp.Problem(model, ({"pixel_values": x}, y))
    ds = gp.probe(problem, ["lr", "es"], copies=2, block=2, seeds=1, memory=budget)
    found = {
        "clean": clean,
        "peak": resident("VmHWM") - start,
        "layers": len(layers_of(problem)),
        "seconds": time.perf_counter() - began,
        "statuses": sorted(set(ds["status"].values.ravel().tolist())),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
