"""A module, one batch and a loss, evaluated without leaving a trace."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import copied, map_tensors, tensors
from gradprobe.core.rows import moved, split_rows
from gradprobe.core.spec import digest
from gradprobe.problems.losses import Loss, find_loss

Tensors = dict[str, torch.Tensor]


class Problem:
    """A module, one batch of data and a loss.

    The module itself is never run: a twin that shares its parameters and buffers is, so that hooks, flags and
    state stay where they are while values follow the user's training. With per-sample losses ``L_b`` and
    weights ``w_b`` the objective is ``sum_b w_b L_b``.

    Args:
        module: The model.
        batch: ``(inputs, target)``; inputs are one tensor, a tuple (positional arguments) or a dict (keyword
            arguments).
        loss: A name (``cross_entropy``, ``mse``, ...) or ``f(output, target)`` that returns losses ``[B]`` or
            one scalar.
        loss_per: ``"sample"`` if each sample has a loss of its own, ``"copy"`` if there is one for the whole
            batch. Found out by default: a scalar loss is the copy's; losses ``[B]`` are the samples' if
            changing some samples moves no other's loss.
        weights: ``w_b``, shape ``[B]``; 1/B by default.
        mode: ``"eval"`` (default: running statistics, no dropout) or ``"as-is"``.
        name: What to call it in results.
        facts: JSON-able facts to be kept with results (checkpoint hash, data name, ...).

    Raises:
        UsageError: Batch and target do not fit, the loss is not finite, or the forward is random.
    """

    def __init__(
        self,
        module: nn.Module,
        batch: tuple[Any, Any],
        loss: str | Loss = "cross_entropy",
        *,
        loss_per: str | None = None,
        weights: torch.Tensor | None = None,
        mode: str = "eval",
        name: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if mode not in ("eval", "as-is"):
            raise UsageError(f"mode {mode!r} is not known; use 'eval' or 'as-is'.")
        if loss_per not in (None, "sample", "copy"):
            raise UsageError(f"loss_per {loss_per!r} is not known; use 'sample', 'copy' or leave it out.")
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise UsageError("batch must be a pair (inputs, target).")
        self.module = module
        self.inputs, self.target = batch
        self.loss = loss
        self.name = name or type(module).__name__
        self.facts = dict(facts or {})
        self.samples_run = 0
        self.overrides: Tensors = {}
        self._loss = find_loss(loss)
        self._cache: dict[Any, Any] | None = None
        self._structure: dict[Any, Any] = {}
        self._changing: tuple[str, ...] = ()
        self._check_lengths()
        self.twin = self._make_twin(mode)
        self._places = _places(self.twin)
        self.mode = mode
        self.batch_size = 0
        self.loss_per = "copy"
        self.weights: torch.Tensor | None = None
        self._preflight(loss_per, weights)

    @property
    def forwards(self) -> float:
        """Forward passes of the batch so far; a sample that ran alone counts as its share of one."""
        return self.samples_run / self.batch_size

    @property
    def parameters(self) -> Tensors:
        """Current values of all parameters, by name, detached."""
        named = {name: p.detach() for name, p in self.twin.named_parameters()}
        return named | self.overrides

    def at(self, parameters: Mapping[str, torch.Tensor]) -> Problem:
        """The same problem with other parameter values; the module keeps its own.

        Args:
            parameters: Name -> value; the others stay.

        Raises:
            UsageError: A name is not a parameter of the module.
        """
        other = copy.copy(self)
        other.overrides = self.overrides | dict(parameters)
        other._cache = None
        unknown_names = set(parameters) - set(self.parameters)
        if unknown_names:
            raise UsageError(f"the model has no parameter {sorted(unknown_names)[0]!r}.")
        return other

    def evaluate(
        self,
        parameters: Mapping[str, torch.Tensor] | None = None,
        repeats: int = 1,
        sample: int | None = None,
    ) -> torch.Tensor:
        """Losses of one forward.

        Args:
            parameters: Values that replace the model's own for this forward.
            repeats: How many times the batch is repeated along axis 0, copy after copy.
            sample: Run this sample alone (``loss_per="sample"`` only).

        Returns:
            ``[repeats * B]`` losses of the samples, ``[1]`` for one sample, or the copy's loss ``[]``.
        """
        return self._within(parameters or {}, lambda: self._evaluate(repeats, sample))

    def gradient(
        self,
        parameters: Mapping[str, torch.Tensor],
        leaves: Sequence[torch.Tensor],
        sample: int | None = None,
    ) -> list[torch.Tensor | None]:
        """Gradient of the objective by backprop.

        Args:
            parameters: Values that replace the model's own, made of the leaves.
            leaves: What to differentiate with respect to.
            sample: Only this sample's term ``w_b L_b`` (``loss_per="sample"`` only).

        Returns:
            A dense gradient for each leaf; None where the loss does not depend on it.
        """

        def backward() -> list[torch.Tensor | None]:
            losses = self._evaluate(1, sample)
            total = self.total(losses) if sample is None else (losses * self._weight(sample)).sum()
            if not total.requires_grad:
                return [None] * len(leaves)
            # inside: a checkpointed model runs again during backward, and must see the same values
            return list(torch.autograd.grad(total, list(leaves), allow_unused=True))

        with torch.enable_grad():
            found = self._within(parameters, backward)
        return [g.to_dense() if g is not None and g.is_sparse else g for g in found]

    def total(self, losses: torch.Tensor) -> torch.Tensor:
        """``sum_b w_b L_b`` along the last axis; a copy's loss is returned as it is."""
        if self.loss_per == "copy" and losses.ndim == 0:
            return losses
        assert self.weights is not None
        return (losses * self.weights.to(losses.dtype)).sum(-1)

    @contextmanager
    def frozen(self) -> Iterator[Problem]:
        """Promise that parameters and batch do not change inside: clean passes are computed once."""
        outer, self._cache = self._cache, self._cache if self._cache is not None else {}
        try:
            yield self
        finally:
            self._cache = outer

    def memo(self, key: Any, compute: Callable[[], Any]) -> Any:
        """``compute()``, remembered while the problem is :meth:`frozen`."""
        if self._cache is None:
            return compute()
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """``compute()``, remembered for good: for what depends on structure and shapes, not on values."""
        if key not in self._structure:
            self._structure[key] = compute()
        return self._structure[key]

    def clean_losses(self) -> torch.Tensor:
        """Losses without noise, float64: ``[B]`` or, for a copy's loss, ``[]``."""

        def compute() -> torch.Tensor:
            with torch.no_grad():
                return self.evaluate().double()

        return self.memo("clean losses", compute)

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of model (class, names, values), batch and loss: what makes two runs the same."""
        state = {**self.parameters, **dict(self.twin.named_buffers())}
        code = getattr(self._loss, "__code__", None)
        loss = self.loss if isinstance(self.loss, str) else getattr(self._loss, "__qualname__", "callable")
        body = code.co_code.hex() + repr(code.co_consts) if code and not isinstance(self.loss, str) else ""
        return {
            "model": digest([type(self.module).__qualname__, {k: _hash(v) for k, v in state.items()}]),
            "batch": digest([_hash(t) for t in tensors((self.inputs, self.target))]),
            "loss": digest([loss, body, self.loss_per, self.mode]),
        }

    def local_values(self, path: str) -> Tensors:
        """Values of everything inside a module, by local name: parameters and copies of buffers."""
        start = f"{path}." if path else ""
        state = self.parameters | {n: b.detach().clone() for n, b in self.twin.named_buffers()}
        return {
            place[len(start) :]: state[name]
            for name, places in self._places.items()
            for place in places
            if place.startswith(start)
        }

    def _evaluate(self, repeats: int, sample: int | None) -> torch.Tensor:
        self.samples_run += repeats * (self.batch_size if sample is None else 1)
        data = (self.inputs, self.target)
        if repeats > 1:
            data = map_tensors(lambda t: _tiled(t, repeats), data)
        if sample is not None:
            data = map_tensors(lambda t: t[sample : sample + 1] if t.ndim else t, data)
        losses = self._losses(*data)
        if self.loss_per == "sample":
            return losses
        return losses if losses.ndim == 0 else self.total(losses)

    def _losses(self, inputs: Any, target: Any) -> torch.Tensor:
        args, kwargs = _arguments(copied(inputs))  # a model may change its input in place
        return self._loss(self.twin(*args, **kwargs), copied(target))

    def _within(self, parameters: Mapping[str, torch.Tensor], function: Callable[[], Any]) -> Any:
        """Run a function while the twin has other values; state that a forward changes is cloned first."""
        values = self.overrides | dict(parameters)
        if self._changing:
            state = {**dict(self.twin.named_parameters()), **dict(self.twin.named_buffers())}
            values = {name: state[name].detach().clone() for name in self._changing} | values
        if not values:
            return function()
        placed = {f"twin.{place}": v for name, v in values.items() for place in self._places[name]}
        return functional_call(_Swapped(self.twin), placed, (function,), tie_weights=False)

    def _weight(self, sample: int) -> torch.Tensor:
        assert self.weights is not None
        return self.weights[sample]

    def _make_twin(self, mode: str) -> nn.Module:
        shared = [*self.module.parameters(), *self.module.buffers()]
        if any(nn.parameter.is_lazy(t) for t in shared):
            raise UsageError("the model has uninitialised (lazy) parameters; run it once on a batch first.")
        half = next((n for n, p in self.module.named_parameters() if p.dtype.itemsize < 4), None)
        if half is not None:
            raise UsageError(
                f"parameter {half!r} has half precision, which rounds small noise away; probe model.float()."
            )
        try:
            twin = copy.deepcopy(self.module, {id(t): t for t in shared})
        except Exception as error:
            raise UsageError(
                f"a {type(self.module).__name__} cannot be copied ({error}); gradprobe runs a copy so that "
                "yours stays untouched. Give the model a __deepcopy__ or build it without what cannot be copied."
            ) from error
        return twin.eval() if mode == "eval" else twin

    def _check_lengths(self) -> None:
        if isinstance(self.inputs, torch.Tensor) and isinstance(self.target, torch.Tensor):
            have, want = self.inputs.shape[:1], self.target.shape[:1]
            if have != want and isinstance(self.loss, str):
                raise UsageError(
                    f"the batch has {_length(have)} inputs but {_length(want)} targets; they must be as many."
                )

    def _preflight(self, loss_per: str | None, weights: torch.Tensor | None) -> None:
        """Two clean forwards on copies of the state, then a look at which losses depend on which samples."""
        with torch.no_grad():
            state = {**dict(self.twin.named_parameters()), **dict(self.twin.named_buffers())}
            copies = {name: t.detach().clone() for name, t in state.items()}
            try:
                losses = self._within(copies, lambda: self._losses(self.inputs, self.target))
            except UsageError:
                raise
            except Exception as error:
                raise UsageError(
                    f"the model or its loss fails on this batch: {type(error).__name__}: {error}"
                ) from error
            if not isinstance(losses, torch.Tensor):
                raise UsageError(f"the loss returns a {type(losses).__name__}; it must return a tensor.")
            if losses.ndim > 1:
                raise UsageError(
                    f"the loss returns shape {list(losses.shape)}; it must return losses [B] or a scalar."
                )
            self._changing = tuple(n for n, t in copies.items() if not torch.equal(t, state[n]))
            if not bool(losses.isfinite().all()):
                raise UsageError(
                    "the loss without noise is not finite; check the checkpoint, the scaling of the inputs and "
                    "the targets."
                )
            again = self._within({}, lambda: self._losses(self.inputs, self.target))
            if not torch.allclose(again, losses, rtol=1e-4, atol=1e-6):
                raise UsageError(
                    "two forwards of the same batch give different losses (dropout, or state kept between "
                    "calls); use mode='eval' or switch the randomness off."
                )
            self._settle(losses, loss_per, weights)

    def _settle(self, losses: torch.Tensor, loss_per: str | None, weights: torch.Tensor | None) -> None:
        if losses.ndim == 0:
            if loss_per == "sample":
                raise UsageError(
                    "the loss returns a scalar; for loss_per='sample' it must return losses [B]."
                )
            if weights is not None:
                raise UsageError("weights need a loss that returns losses [B]; this one returns a scalar.")
            self.batch_size = 1
            return
        self.batch_size = len(losses)
        if weights is None:
            weights = torch.full_like(losses, 1 / len(losses), dtype=torch.float64)
        if weights.shape != losses.shape:
            raise UsageError(f"weights have shape {list(weights.shape)}, the losses {list(losses.shape)}.")
        self.weights = weights.detach().double()
        independent = self._independent(losses)
        if loss_per == "sample" and not independent:
            raise UsageError("the losses are not the samples' own: changing a sample moves another's loss.")
        self.loss_per = loss_per or ("sample" if independent else "copy")

    def _independent(self, clean: torch.Tensor) -> bool:
        """Whether changing half of the samples leaves the other half's losses alone, for two splits."""
        size = len(clean)
        for split in range(2):
            chosen = split_rows(size, split).to(clean.device)

            def change(t: torch.Tensor, chosen: torch.Tensor = chosen) -> torch.Tensor:
                return _changed_rows(t, chosen) if t.ndim and len(t) == size else t

            try:
                changed = map_tensors(change, self.inputs)
                losses = self._within({}, functools.partial(self._losses, changed, self.target))
            except Exception:
                return False
            if moved(losses, clean)[~chosen].any():
                return False
        return True


class _Swapped(nn.Module):
    """Runs a function while ``functional_call`` has swapped values in: a backward pass inside sees them too."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def _places(model: nn.Module) -> dict[str, list[str]]:
    """Name of a parameter or buffer -> all places that hold it, each module object counted once.

    ``functional_call`` restores a module that is registered under two names wrongly if it is given both, and
    forgets tied modules if it is given one name for two of them.
    """
    named = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    places: dict[str, list[str]] = {name: [] for name in named.values()}
    for path, module in model.named_modules():
        for local, t in [*module._parameters.items(), *module._buffers.items()]:
            if t is not None:
                places[named[id(t)]].append(f"{path}.{local}" if path else local)
    return places


def _changed_rows(t: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    chosen = chosen.to(t.device)
    new = t.roll(1, 0)
    if t.is_floating_point():
        new = new + t.std(correction=0) * 0.5 + 0.1
    return torch.where(chosen.view(-1, *[1] * (t.ndim - 1)), new, t)


def _tiled(t: torch.Tensor, repeats: int) -> torch.Tensor:
    return t.repeat(repeats, *[1] * (t.ndim - 1)) if t.ndim else t


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def _length(shape: torch.Size) -> str:
    return str(shape[0]) if shape else "no axis of"


def _hash(t: torch.Tensor) -> str:
    flat = t.detach().to("cpu").contiguous().flatten()
    raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.sha256(f"{t.dtype}{list(t.shape)}".encode() + raw).hexdigest()
