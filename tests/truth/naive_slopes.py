"""Forward gradients written down once more: the slope along the noise is <gradient, noise>, one loss at a time.

The gradient is backprop's through a copy of the user's module, so nothing here is differentiated forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from tests.truth import naive


def along_noise(
    problem: Problem, draw: Draw, layers: Sequence[Layer], noise: dict, copies: int
) -> torch.Tensor:
    """<gradient of each loss, noise> by backprop ``[m, B]`` (``[m, 1]`` of a copy's loss): one loss at a time."""
    model, own = naive.copied(problem, layers if draw.where == "activations" else ())
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.padding_idx = None  # backprop passes that row over; the loss depends on it all the same
    counts = {x.name: 0 for x in layers}
    leaves: dict = {}

    def after(layer, module, args, output):
        site = (layer.name, counts[layer.name] % layer.calls)  # checkpoints run again in the backward pass
        counts[layer.name] += 1
        shape = layer.outputs[site[1]]
        leaves.setdefault(site, torch.zeros(shape, dtype=torch.float64, requires_grad=True))
        return naive.with_first(output, lambda first: first + leaves[site])

    for x in layers:
        for path in x.modules if draw.where == "activations" else ():
            model.get_submodule(path).register_forward_hook(naive._with_path(after, x))
        if draw.where == "weights":
            leaves |= {(x.name, i): own[name].requires_grad_() for i, name in enumerate(x.parameters)}
    with torch.enable_grad():
        losses = naive._losses(problem, naive._called(model, naive._clone(problem.inputs)), problem.target)
        sites, values = zip(*leaves.items(), strict=True)
        columns = []
        for b, loss in enumerate(losses.view(-1)):
            found = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
            column = torch.zeros(copies, dtype=torch.float64)
            for site, g in zip(sites, found, strict=True):
                eps = noise[site].double()
                if draw.where == "weights" and draw.share == "sample":
                    eps = eps[:, b]
                if g is not None:
                    column += (eps.expand(-1, *g.shape) * g.to_dense()).reshape(copies, -1).sum(1)
            columns.append(column)
    return torch.stack(columns, 1).detach()


def read(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    block: Block,
    streams: Streams,
) -> list[naive.Directions]:
    """One block of a draw of derivatives, read in several ways: what ``read_block`` should give."""
    noise = naive.all_noise(problem, draw, layers, block, streams)
    slopes = along_noise(problem, draw, layers, noise, block.copies)
    if problem.loss_per == "copy":
        slopes = slopes[:, 0]
    return [_read(problem, draw, layers, readout, noise, slopes) for readout in readouts]


def _read(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readout: ReadOut,
    noise: dict,
    slopes: torch.Tensor,
) -> naive.Directions:
    copies = len(slopes)
    calls = naive.run(problem, layers)[1] if draw.where == "activations" else {}
    jacobians, found = naive.Jacobians(problem), {name: 0.0 for x in layers for name in x.parameters}
    for x in layers:
        for number in range(x.calls if draw.where == "activations" else len(x.parameters)):
            for k in range(copies):
                factor = naive.score(draw, readout, noise[x.name, number][k].double(), 1.0)
                if draw.where == "weights":
                    weights = problem.weights if problem.loss_per == "sample" else torch.ones(1).double()
                    each = (slopes[k] * weights).view(-1)
                    own = factor if draw.share == "sample" else factor.expand(len(each), *factor.shape)
                    name = x.parameters[number]
                    found[name] = found[name] + torch.tensordot(each, own, 1) / copies
                    continue
                wide = factor.expand(x.outputs[number])
                cotangent = naive._cotangent(problem, x, slopes[k], wide)
                for name, j in jacobians.of(x, (x.name, number), calls[x.name, number]).items():
                    j = torch.sign(j) if readout.encodes_input else j
                    term = torch.tensordot(cotangent, j.double(), dims=cotangent.ndim)
                    found[name] = found[name] + term / copies
    return found
