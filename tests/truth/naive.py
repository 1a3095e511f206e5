"""The specification written down once more, slowly: one copy, one sample, one Jacobian entry at a time.

Nothing here knows how the engine works. It uses the package for three things only: the keyed streams and
noise families (which numbers), the ``Layer`` record (which module, which parameter names) and the options of
a draw and a read-out. Noise is added by plain hooks on a deep copy of the user's module (with its recurrent
modules written out where a record speaks of their steps), or written into its weights; directions are formed
from the Jacobian of the single layer, entry by entry.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import Plain, make_family
from gradprobe.engine.tiles import unit_noise
from gradprobe.estimators.base import Estimator
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from tests.truth import naive_noise
from tests.truth.steps import taken_apart

Site = tuple[str, int]
Directions = dict[str, torch.Tensor]


def directions(
    estimator: Estimator, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
) -> Directions:
    """What ``estimator.directions`` should give."""
    assigned = estimator.assignment(layers)
    found: Directions = {}
    for draw in {str(draw): draw for draw, _ in assigned.values()}.values():
        mine = [x for x in layers if str(assigned[x.name][0]) == str(draw)]
        for unit in [mine] if draw.injection == "joint" else [[x] for x in mine]:
            kinds = list(dict.fromkeys(assigned[x.name][1] for x in unit))
            for kind, given in zip(kinds, read(problem, draw, unit, kinds, block, streams), strict=True):
                for x in unit:
                    if assigned[x.name][1] == kind:
                        found.update({name: given[name] for name in x.parameters})
    return found


def read(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    block: Block,
    streams: Streams,
) -> list[Directions]:
    """One block of a draw, read in several ways: what ``read_block`` should give."""
    if draw.derived:
        from tests.truth import naive_slopes  # it uses this file

        return naive_slopes.read(problem, draw, layers, readouts, block, streams)
    if any(x.level_of for x in layers):
        return _levels(problem, draw, layers, readouts, block, streams)
    noise = all_noise(problem, draw, layers, block, streams)
    if draw.where == "weights":
        return _weights(problem, draw, layers, readouts, block.copies, noise)
    return _activations(problem, draw, layers, readouts, block.copies, noise)


# --- noise


def all_noise(
    problem: Problem, draw: Draw, layers: Sequence[Layer], block: Block, streams: Streams
) -> dict[Site, torch.Tensor]:
    """(layer, call or parameter number) -> unit noise ``[m, *shape]``."""
    drawn = block.copies // 2 if draw.antithetic else block.copies
    family, shapes = make_family(draw.noise), {}
    for layer in layers:
        if draw.where == "activations":
            mine = [_one_row(s, layer.axis) if draw.share == "batch" else s for s in layer.outputs]
        else:
            each = (problem.batch_size,) if draw.share == "sample" else ()
            mine = [(*each, *s) for s in layer.shapes]
        shapes |= {(layer.name, number): tuple(shape) for number, shape in enumerate(mine)}
    if isinstance(family, Plain):
        found = {
            site: unit_noise(
                family, streams.key(draw.noise, draw.where, *site, block.index), shape, range(drawn)
            )
            for site, shape in shapes.items()
        }
    else:
        repeats = int(draw.where == "weights" and draw.share == "sample")
        found = naive_noise.structured(draw, shapes, repeats, streams, block.index, drawn)
    return {site: torch.cat([eps, -eps]) if draw.antithetic else eps for site, eps in found.items()}


def _one_row(shape, axis):
    return tuple(1 if number == axis else length for number, length in enumerate(shape))


def score(draw: Draw, readout: ReadOut, eps: torch.Tensor, sigma: float) -> torch.Tensor:
    """What multiplies the loss: the score of the noise, or its sign without 1/sigma."""
    if readout.encode in ("sign", "sign-noise"):
        return torch.sign(eps)
    if draw.noise == "laplace":
        return math.sqrt(2) * torch.sign(eps) / sigma
    return eps / sigma


# --- forwards


def copied(problem: Problem, layers: Sequence[Layer]) -> tuple[nn.Module, Directions]:
    """A copy of the user's module that has the modules of the layers, and its parameters by the user's names."""
    model = copy.deepcopy(problem.module)
    if problem.mode == "eval":
        model.eval()
    own = dict(model.named_parameters())
    return taken_apart(model, [path for x in layers for path in x.modules]), own


def run(
    problem: Problem,
    layers: Sequence[Layer] = (),
    shift: dict[Site, torch.Tensor] | None = None,
    weights: Directions | None = None,
    sample: int | None = None,
) -> tuple[torch.Tensor, dict[Site, tuple]]:
    """One forward of one copy.

    Args:
        problem: The problem.
        layers: Layers to hook.
        shift: What is added to the output of each call.
        weights: What is added to each parameter.
        sample: Run this sample alone.

    Returns:
        Losses ``[B]`` (``[]`` for a copy's loss, ``[1]`` for one sample); module and arguments of each call.
    """
    model, own = copied(problem, layers)
    with torch.no_grad():
        for name, delta in (weights or {}).items():
            own[name].copy_(own[name] + delta)
    counts = {x.name: 0 for x in layers}
    pending: dict[str, list[tuple]] = {}
    calls: dict[Site, tuple] = {}

    def before(path, module, args, kwargs):
        pending.setdefault(path, []).append((_clone(args), _clone(kwargs)))

    def after(layer, path, module, args, kwargs, output):
        site = (layer.name, counts[layer.name])
        counts[layer.name] += 1
        calls[site] = (path, *pending[path].pop())
        if shift is None:
            return output
        return with_first(output, lambda first: first.clone() + shift[site].to(first.dtype))

    for layer in layers:
        for path in layer.modules:
            module = model.get_submodule(path)
            module.register_forward_pre_hook(_with_path(before, path), with_kwargs=True)
            module.register_forward_hook(_with_path(after, layer, path), with_kwargs=True)
    inputs, target = problem.inputs, problem.target
    if sample is not None:
        inputs, target = _rows(problem, inputs, sample), _rows(problem, target, sample)
    with torch.no_grad():
        output = _called(model, _clone(inputs))
        return _losses(problem, output, target), calls


def _called(model, inputs):
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _losses(problem, output, target):
    output = getattr(output, "logits", output)
    if problem.loss == "mse":
        losses = ((output - target) ** 2).flatten(1).mean(1)
    elif problem.loss == "cross_entropy":
        losses = torch.stack([-F.log_softmax(o, 0)[t] for o, t in zip(output, target, strict=True)])
    else:
        losses = problem.loss(output, target)
    if problem.loss_per == "copy" and losses.ndim:
        losses = sum(w * x for w, x in zip(problem.weights.to(losses), losses, strict=True))
    return losses


def _with_path(function, *first):
    return lambda *args: function(*first, *args)


def _clone(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _clone(v) for k, v in value.items()}
    return tuple(_clone(v) for v in value) if isinstance(value, tuple) else value


def _rows(problem, value, b):
    if isinstance(value, dict):
        return {k: _rows(problem, v, b) for k, v in value.items()}
    axis = problem.batch_axis if value.shape[problem.batch_axis :][:1] == (problem.batch_size,) else 0
    return value.narrow(axis, b, 1)


def with_first(output, change):
    """The output with its first floating tensor changed: of tuples, dicts and dataclasses the first such item."""
    if isinstance(output, torch.Tensor):
        return change(output)
    named = output if isinstance(output, dict) else getattr(output, "__dict__", None)
    items = list(named.items()) if named is not None else list(enumerate(output))
    place, first = next((k, v) for k, v in items if isinstance(v, torch.Tensor) and v.is_floating_point())
    if isinstance(output, tuple):
        return tuple(change(first) if k == place else v for k, v in items)
    changed = {**named, place: change(first)}
    return changed if isinstance(output, dict) else type(output)(**changed)


# --- the layer's Jacobian


class Jacobians:
    """Jacobians of single layers, ``{parameter: [*output, *param]}``; kept while the input stays the same."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.last: dict[Site, tuple] = {}

    def of(self, layer: Layer, site: Site, call: tuple) -> dict[str, torch.Tensor]:
        known = self.last.get(site)
        if known is None or not _same(known[0], call):
            known = self.last[site] = (call, self._compute(layer, call))
        return known[1]

    def _compute(self, layer: Layer, call: tuple) -> dict[str, torch.Tensor]:
        path, args, kwargs = call
        model, _ = copied(self.problem, [layer])
        module: nn.Module = model.get_submodule(path)
        own = layer.modules[path]
        leaves = {full: module.get_parameter(local).requires_grad_() for local, full in own.items()}
        with torch.enable_grad():
            output = module(*args, **kwargs)
            seen = []
            with_first(output, lambda first: seen.append(first) or first)
            (output,) = seen
            rows = [
                torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, allow_unused=True)
                for entry in output.flatten()
            ]
        found = {}
        for number, (name, leaf) in enumerate(leaves.items()):
            entries = [
                torch.zeros_like(leaf) if row[number] is None else row[number].to_dense() for row in rows
            ]
            found[name] = torch.stack(entries).reshape(*output.shape, *leaf.shape).detach()
        return found


def _same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(_same(one[k], other[k]) for k in one)
    return all(map(_same, one, other)) if isinstance(one, tuple) else one == other


# --- directions


def _activations(problem, draw, layers, readouts, copies, noise):
    outcomes = []
    for k in range(copies):
        shift = {site: draw.sigma_of(site[0]) * eps[k].double() for site, eps in noise.items()}
        outcomes.append(run(problem, layers, shift))
    losses, kept = _kept([o[0] for o in outcomes], draw)
    clean = run(problem)[0].double()
    jacobians = Jacobians(problem)
    found = [{name: 0.0 for x in layers for name in x.parameters} for _ in readouts]
    for k in kept:
        for (name, number), eps in noise.items():
            layer = next(x for x in layers if x.name == name)
            exact = jacobians.of(layer, (name, number), outcomes[k][1][name, number])
            signs = {p: torch.sign(jacobian) for p, jacobian in exact.items()}
            for direction, readout in zip(found, readouts, strict=True):
                jacobian = signs if readout.encode in ("sign", "sign-input") else exact
                factor = score(draw, readout, eps[k].double(), draw.sigma_of(name))
                value = _centred(readout, losses, clean, k, kept, draw)
                cotangent = _cotangent(problem, layer, value, factor.expand(layer.outputs[number]))
                for p, j in jacobian.items():
                    term = torch.tensordot(cotangent, j.double(), dims=cotangent.ndim)
                    direction[p] = direction[p] + term / len(losses)
    return found


def _cotangent(problem, layer, value, factor):
    """One cotangent of the layer's output: each sample's own loss times its score, or the copy's loss."""
    if problem.loss_per == "copy":
        return value * factor
    if layer.credit == "copy":
        return sum(w * v for w, v in zip(problem.weights, value, strict=True)) * factor
    axis = layer.axis
    own = [problem.weights[b] * value[b] * factor.select(axis, b) for b in range(len(value))]
    return torch.stack(own, axis)


def _weights(problem, draw, layers, readouts, copies, noise):
    names = {(x.name, number): p for x in layers for number, p in enumerate(x.parameters)}
    each = draw.share == "sample"
    losses, kept = _kept(_moved(problem, draw, layers, copies, noise), draw)
    clean = run(problem)[0].double()
    found = [dict.fromkeys(names.values(), 0.0) for _ in readouts]
    for k in kept:
        for site, eps in noise.items():
            for direction, readout in zip(found, readouts, strict=True):
                factor = score(draw, readout, eps[k].double(), draw.sigma_of(site[0]))
                value = _centred(readout, losses, clean, k, kept, draw)
                if readout.centre == "rank" and not each and problem.loss_per == "sample":
                    totals = [(problem.weights * x).sum() for x in losses]
                    term = _rank(totals, k, kept) * factor
                elif problem.loss_per == "copy":
                    term = value * factor
                else:
                    own = [factor[b] if each else factor for b in range(len(value))]
                    term = sum(problem.weights[b] * value[b] * own[b] for b in range(len(value)))
                direction[names[site]] = direction[names[site]] + term / len(losses)
    return found


def _moved(problem, draw, layers, copies, noise):
    """Losses of each copy under weight noise."""
    names = {(x.name, number): p for x in layers for number, p in enumerate(x.parameters)}
    each = draw.share == "sample"

    def shifted(k, b=None):
        return {
            names[site]: draw.sigma_of(site[0]) * (eps[k] if b is None else eps[k, b]).double()
            for site, eps in noise.items()
        }

    raw = []
    for k in range(copies):
        if each:
            raw.append(
                torch.cat([run(problem, (), None, shifted(k, b), b)[0] for b in range(problem.batch_size)])
            )
        else:
            raw.append(run(problem, (), None, shifted(k))[0])
    return raw


# --- levels of noise


def _levels(problem, draw, levels, readouts, block, streams):
    """E (L - c) (eps score - 1/sigma): loss by loss, entry by entry."""
    layers = [x.base for x in levels]
    noise = all_noise(problem, draw, layers, block, streams)
    if draw.where == "weights":
        raw = _moved(problem, draw, layers, block.copies, noise)
    else:
        raw = [run(problem, layers, _shift(draw, noise, k))[0] for k in range(block.copies)]
    losses, kept = _kept(raw, draw)
    clean = run(problem)[0].double()
    found = [{x.parameters[0]: 0.0 for x in levels} for _ in readouts]
    for k in kept:
        for level in levels:
            for site in [site for site in noise if site[0] == level.base.name]:
                eps, sigma = noise[site][k].double(), draw.sigma_of(level.base.name)
                for direction, readout in zip(found, readouts, strict=True):
                    factor = eps * score(draw, readout, eps, sigma) - 1 / sigma
                    value = _centred(readout, losses, clean, k, kept, draw)
                    if draw.where == "activations":
                        factor = factor.expand(level.base.outputs[site[1]])
                        terms = _cotangent(problem, level.base, value, factor)
                    elif problem.loss_per == "copy":
                        terms = value * factor
                    else:
                        each = draw.share == "sample"
                        own = [factor[b] if each else factor for b in range(len(value))]
                        terms = sum(problem.weights[b] * value[b] * own[b] for b in range(len(value)))
                    name = level.parameters[0]
                    direction[name] = direction[name] + _per_neuron(terms, level) / len(losses)
    return found


def _shift(draw, noise, k, more=0.0, at=None):
    """Shift of every site, with ``more`` noise at one layer (``{layer: mask}``)."""
    found = {}
    for site, eps in noise.items():
        sigma = draw.sigma_of(site[0]) + (more * at[site[0]] if at and site[0] in at else 0.0)
        found[site] = sigma * eps[k].double()
    return found


def _per_neuron(terms, level):
    if level.neurons is None:
        return terms.sum()
    return torch.stack([row.sum() for row in terms.unbind(level.neurons)])


def level_slopes(
    problem: Problem, draw: Draw, levels: Sequence[Layer], block: Block, streams: Streams, step: float = 1e-5
) -> Directions:
    """Mean over a block of dL/dsigma at fixed noise on activations, by differences: what ``pathwise`` should give."""
    layers = [x.base for x in levels]
    noise = all_noise(problem, draw, layers, block, streams)
    found: Directions = {}
    for level in levels:
        size = len(level.base.outputs[0])
        rows = range(level.shapes[0][0]) if level.neurons is not None else [None]
        slopes = []
        for row in rows:
            mask = torch.ones([1] * size, dtype=torch.float64)
            if row is not None:
                shape = [level.shapes[0][0] if a == level.neurons else 1 for a in range(size)]
                mask = (torch.arange(level.shapes[0][0]) == row).double().view(shape)
            at = {level.base.name: mask}
            totals = [
                sign * problem.total(run(problem, layers, _shift(draw, noise, k, sign * step, at))[0])
                for k in range(block.copies)
                for sign in (1, -1)
            ]
            slopes.append(sum(totals) / (2 * step * block.copies))
        found[level.parameters[0]] = torch.stack(slopes) if level.neurons is not None else slopes[0]
    return found


def level_of_quadratic(problem: Problem, draw: Draw, levels: Sequence[Layer]) -> Directions:
    """sigma times the trace of the Hessian: dE/dsigma where the loss is quadratic in one layer's noise alone."""
    found: Directions = {}
    for level in levels:
        slope, step = 0.0, 1e-3
        for number, shape in enumerate(level.base.outputs):
            for entry in range(math.prod(shape)):
                unit = torch.zeros(math.prod(shape), dtype=torch.float64)
                unit[entry] = step
                shifts = [sign * unit.view(shape) for sign in (1, 0, -1)]
                up, here, down = (
                    float(problem.total(run(problem, [level.base], {(level.base.name, number): s})[0]))
                    for s in shifts
                )
                slope += draw.sigma_of(level.base.name) * (up - 2 * here + down) / step**2
        found[level.parameters[0]] = torch.tensor(slope, dtype=torch.float64)
    return found


def _partner(k: int, copies: int, draw: Draw) -> int:
    """The copy with the opposite noise; the copy itself if there is none."""
    return (k + copies // 2) % copies if draw.antithetic else k


def _kept(losses: list[torch.Tensor], draw: Draw) -> tuple[list[torch.Tensor], list[int]]:
    """Copies whose losses are all finite; a pair counts as a whole. The others count as 0 in the mean."""
    fine = [bool(x.isfinite().all()) for x in losses]
    kept = [k for k in range(len(losses)) if fine[k] and fine[_partner(k, len(losses), draw)]]
    return [x.double() for x in losses], kept


def _centred(readout, losses, clean, k, kept, draw):
    if readout.centre == "none":
        return losses[k]
    if readout.centre == "clean":
        return losses[k] - clean
    if readout.centre == "rank":
        return _rank(losses, k, kept)
    others = [j for j in kept if j not in (k, _partner(k, len(losses), draw))]
    return losses[k] - sum(losses[j] for j in others) / len(others)


def _rank(losses, k, kept):
    """Half of what share of the others is below less what share is above, loss by loss."""
    found = torch.zeros_like(losses[k])
    for j in kept:
        if j != k:
            found += ((losses[j] < losses[k]).double() - (losses[j] > losses[k]).double()) / 2
    return found / max(len(kept) - 1, 1)


# --- the reference: backprop under noise


def pathwise(
    problem: Problem, draw: Draw, layers: Sequence[Layer], block: Block, streams: Streams
) -> Directions:
    """Mean backprop gradient of the noisy objective: what ``engine.pathwise`` should give."""
    noise = all_noise(problem, draw, layers, block, streams)
    names = [name for x in layers for name in x.parameters]
    sums = dict.fromkeys(names, 0.0)
    alone = draw.where == "weights" and draw.share == "sample"
    for k in range(block.copies):
        for b in range(problem.batch_size) if alone else [None]:
            for name, gradient in _backprop(problem, draw, layers, noise, k, b, names).items():
                sums[name] = sums[name] + gradient.to_dense().double() / block.copies
    return sums


def _backprop(problem, draw, layers, noise, k, b, names):
    model, own = copied(problem, layers if draw.where == "activations" else ())
    leaves = {name: own[name].requires_grad_() for name in names}
    counts = {x.name: 0 for x in layers}

    def after(layer, module, args, output):
        site = (layer.name, counts[layer.name] % layer.calls)  # checkpointing calls again on the way back
        counts[layer.name] += 1
        delta = draw.sigma_of(layer.name) * noise[site][k].double()
        return with_first(output, lambda first: first + delta.to(first.dtype))

    with torch.no_grad():
        for x in layers:
            if draw.where == "weights":
                for number, name in enumerate(x.parameters):
                    eps = noise[x.name, number][k] if b is None else noise[x.name, number][k, b]
                    leaves[name].add_(draw.sigma_of(x.name) * eps.double())
            else:
                for path in x.modules:
                    model.get_submodule(path).register_forward_hook(_with_path(after, x))
    inputs, target = problem.inputs, problem.target
    if b is not None:
        inputs, target = _rows(problem, inputs, b), _rows(problem, target, b)
    with torch.enable_grad():
        output = _called(model, _clone(inputs))
        losses = _losses(problem, output, target)
        total = losses
        if b is not None:
            total = problem.weights[b] * losses[0]
        elif problem.loss_per == "sample":
            total = sum(w * x for w, x in zip(problem.weights.to(losses), losses, strict=True))
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(names, found, strict=True)}


def silent() -> Draw:
    """Noise so small that :func:`pathwise` is the gradient without noise."""
    return Draw("weights", "joint", share="batch", sigma=1e-300)
