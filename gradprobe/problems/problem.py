"""A module, one batch and a loss, evaluated without leaving a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.core.errors import UsageError, one_of, unknown
from gradprobe.core.hooks import copied, map_tensors, tensors, untouched_globals
from gradprobe.core.remembered import Remembered
from gradprobe.core.rows import Rows
from gradprobe.core.spec import digest
from gradprobe.problems import fingerprint
from gradprobe.problems.device import find_device
from gradprobe.problems.losses import Loss, find_loss, picked
from gradprobe.problems.preflight import check_lengths, check_loss, examine, same_state, still_independent
from gradprobe.problems.seen import Seen
from gradprobe.problems.state import Kept, Watch, standing_in
from gradprobe.problems.twin import (
    PRECISIONS,
    Swapped,
    kinds,
    make_twin,
    places,
    same_tensors,
    shared_tensors,
    unwrapped,
    widen,
)
from gradprobe.problems.unrolling import is_recurrent, unrolled

Tensors = dict[str, torch.Tensor]


class Problem:
    """A module, one batch of data and a loss.

    The module itself is never run: a twin that shares its parameters and buffers is, so that hooks, flags and
    state stay where they are while values follow the user's training. (Hooks of the user's own belong to what
    the model computes: the twin runs them too.) With per-sample losses ``L_b`` and
    weights ``w_b`` the objective is ``sum_b w_b L_b``. Recurrent modules of torch (``nn.LSTM``, ``nn.GRUCell``, ...)
    give way to loops over their steps in the twin if that changes no number of theirs (see
    :func:`~gradprobe.problems.unrolling.unrolled`), so that noise reaches each step.

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
        output: Which of the model's outputs the loss is given: a key or field (``"logits"``), a position, or a
            function of the output. By default a callable loss is given all of it, and a named loss its one
            floating tensor, or its ``logits``.
        batch_axis: The axis of the samples in the inputs (1 for time-major sequences). Found out by default: the
            first along which samples are independent.
        precision: The least precision to run in: ``"float32"`` (default; bfloat16 and float16 round small noise
            away, so they are run as float32), ``"float64"``, or ``"as-is"``.
        name: What to call it in results.
        facts: JSON-able facts to be kept with results (checkpoint hash, data name, ...).

    Raises:
        UsageError: Batch and target do not fit, the loss is not finite, or the forward is random.

    Example:
        >>> module = torch.nn.Linear(4, 3)
        >>> batch = torch.randn(8, 4), torch.randint(0, 3, (8,))
        >>> problem = gp.Problem(module, batch, loss="cross_entropy")
        >>> problem.batch_size, problem.loss_per
        (8, 'sample')
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
        output: str | int | Callable[[Any], Any] | None = None,
        batch_axis: int | None = None,
        precision: str = "float32",
        name: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        one_of("mode", mode, ("eval", "as-is"))
        one_of("precision", precision, tuple(PRECISIONS))
        one_of("loss_per", loss_per, (None, "sample", "copy"))
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise UsageError("batch must be a pair (inputs, target).")
        self.module = unwrapped(module)
        self.inputs, self.target = batch
        self.loss = loss
        self.mode = mode
        self.name = name or type(self.module).__name__
        self.facts = dict(facts or {})
        self.origin: Any = None  # gradprobe.problems.origin.Origin, which needs this class
        self.samples_run = 0
        self.rows = Rows(1)
        self.overrides: Tensors = {}
        self._loss = find_loss(loss)
        self.output, self.precision = output, precision
        self._looks = 0
        self._wish, self._given_weights, self._axis = loss_per, weights, batch_axis
        self._cache: Remembered | None = None
        self._structure: dict[Any, Any] = {}
        self._shared: list[torch.Tensor] = []
        self.fused: dict[str, str] = {}
        if isinstance(loss, str):
            check_lengths(self.inputs, self.target)
        self.refresh()

    def refresh(self) -> None:
        """Look at the problem again: the module's tensors may be others, and whose the losses are may change.

        Called at the start of every probe; an estimate begins with a :meth:`look`. Other attributes of the module
        (its mode, numbers, new submodules) are those of the time when the problem was made.

        Raises:
            UsageError: The loss is not finite or not repeatable, or the module cannot be run.
        """
        shared = shared_tensors(self.module)
        new = not hasattr(self, "twin") or not same_tensors(shared, self._shared)
        if new:
            self._twin, self.fused = make_twin(self.module, self.mode, self.precision), {}
            self._named = dict(self._twin.module.named_parameters())
            self._use(self._twin.module)
        self._twin.follow()
        self._structure = {}
        if self._cache is not None:
            self._cache = Remembered()
        before = {name: b.detach().clone() for name, b in self.module.named_buffers()}
        with untouched_globals(), torch.no_grad():
            data, losses = (self.inputs, self.target), self._first_look()
            if new and is_recurrent(self.twin):
                twin, self.fused = unrolled(self.twin, self._losses_of)
                self._use(twin)
                losses = self._first_look()
            self._shared, self._kinds = shared, kinds(shared)
            found = examine(self._run, data, losses, self._wish, self._given_weights, self._axis)
            same_state(self.module, before)
        self.rows, self.loss_per = found.rows, found.loss_per
        self.weights, self.separable = found.weights, found.separable

    def look(self, of_samples: Callable[[], bool] | None = None) -> bool:
        """Look at the problem again before one of many estimates, which keep global state; see :meth:`refresh`.

        Training asks for one direction after another, and what a refresh finds (whose the losses are, the layers,
        what engines agree) then stays. It is a refresh if the module's tensors are others or of another kind, at
        the calls 1, 2, 4, 8, ..., and if the losses are no longer the samples' own: of the pairs of samples that a
        refresh tries, each call tries half, in turn, unless the estimate is one of the objective alone.

        Args:
            of_samples: Whether what is estimated credits samples with their own losses, so that it matters whose they
                are; asked where no refresh is due. By default it does.

        Returns:
            Whether it was a refresh.

        Raises:
            UsageError: As for :meth:`refresh`.
        """
        self._looks += 1
        shared = shared_tensors(self.module)
        known = same_tensors(shared, self._shared) and kinds(shared) == self._kinds
        if known and self._looks & (self._looks - 1):
            self._twin.follow()
            if self._cache is not None:
                self._cache = Remembered()
            data, losses = (self.inputs, self.target), check_loss(self.clean_losses())
            apart = self.loss_per == "sample" and (of_samples is None or of_samples())
            with torch.no_grad():
                if not apart or still_independent(self._run, data, losses, self.rows, self._looks):
                    return False
        self.refresh()
        return True

    def _use(self, twin: nn.Module) -> None:
        """Let a module be the twin."""
        self.twin = self._twin.module = twin
        self._places = places(twin, self.names)

    def _losses_of(self, twin: nn.Module) -> torch.Tensor:
        self._use(twin)
        return self._run(self.inputs, self.target)

    def _state(self) -> Tensors:
        """The twin's parameters and buffers, by name."""
        return {**self._named, **dict(self.twin.named_buffers())}

    def _first_look(self) -> torch.Tensor:
        """Losses of two forwards, the first on copies of all state, so that what it changes is known."""
        self._changing: tuple[str, ...] = ()
        self._kept = Kept()
        state = self._state()
        copies = {name: t.detach().clone() for name, t in state.items()} | self.overrides

        def watched() -> torch.Tensor:
            watch = Watch(self.twin)
            losses = self._losses(self.inputs, self.target)
            self._kept = watch.changes()
            return losses

        with _told("the model or its loss fails on this batch"):
            losses = self._within(copies, watched)
        with self._kept.put_back():
            losses = check_loss(losses)
        replaced = {(id(module), local) for module, local, _ in self._kept.buffers}
        self._changing = tuple(
            name
            for name, t in copies.items()
            if name not in self.overrides
            and (not torch.equal(t, state[name]) or self._is_among(replaced, name))
        )
        with _told("the model or its loss fails when it is run again on this batch"):
            again = self._run(self.inputs, self.target)
        if not torch.allclose(again, losses, rtol=1e-4, atol=1e-6):
            raise UsageError(
                "two forwards of the same batch give different losses (dropout, or state kept between calls); use "
                "mode='eval' or switch the randomness off."
            )
        return losses

    def _is_among(self, places: set[tuple[int, str]], name: str) -> bool:
        """Whether a tensor is at one of these places: module and local name."""
        split = (place.rpartition(".") for place in self._places[name])
        return any((id(self.twin.get_submodule(path)), local) in places for path, _, local in split)

    def _run(self, inputs: Any, target: Any) -> torch.Tensor:
        return self._within({}, lambda: self._losses(inputs, target))

    @property
    def forwards(self) -> float:
        """Forward passes of the batch so far; a sample that ran alone counts as its share of one."""
        return self.samples_run / self.batch_size

    @property
    def batch_size(self) -> int:
        """Samples in the batch; 1 where the loss is one scalar."""
        return self.rows.size

    @property
    def batch_axis(self) -> int:
        """Axis of the samples in the inputs."""
        return self.rows.axis

    @property
    def samples(self) -> int:
        """Rows of the batch, also where there is one loss for all of them."""
        first = next((t for t in tensors(self.inputs) if t.ndim), None)
        return self.batch_size if self.batch_size > 1 or first is None else len(first)

    @property
    def asked_per(self) -> str | None:
        """What the user said of ``loss_per``; None if it was found out."""
        return self._wish

    @property
    def has_weights(self) -> bool:
        """Whether the user gave weights of the samples."""
        return self._given_weights is not None

    @property
    def kept_apart(self) -> tuple[str, ...]:
        """Names of parameters, buffers and attributes that a forward changes; they are put back after each."""
        return (*self._changing, *self._kept.names)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.twin.parameters()).device

    @property
    def parameters(self) -> Tensors:
        """Current values of all parameters, by name, detached."""

        def compute() -> Tensors:
            self._twin.follow()
            return {name: p.detach() for name, p in self._named.items()} | self.overrides

        return dict(self.memo("parameters", compute))

    @property
    def names(self) -> dict[int, str]:
        """Identity of each parameter -> its name in the user's module; in the twin it may stand elsewhere."""
        return {id(p): name for name, p in self._named.items()}

    def at(self, parameters: Mapping[str, torch.Tensor]) -> Problem:
        """The same problem with other parameter values; the module keeps its own.

        Args:
            parameters: Name -> value; the others stay.

        Raises:
            UsageError: A name is not a parameter of the module, or a shape is another.
        """
        values = self.parameters
        for name, value in parameters.items():
            if name not in values:
                raise unknown("parameter", name, values)
            if value.shape != values[name].shape:
                raise UsageError(f"{name!r} has shape {list(values[name].shape)}, not {list(value.shape)}.")
        other = copy.copy(self)
        other.overrides = self.overrides | {n: self._as_run(v, values[n]) for n, v in parameters.items()}
        other._cache, other._structure = None, {}
        return other

    def to(self, device: str | torch.device) -> Problem:
        """The same problem on a device: this one if it is there already, else one with a copy of the module.

        Args:
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

        Raises:
            UsageError: There is no such device.
        """
        there = find_device(device)
        if there == self.device:
            return self

        def moved(t: torch.Tensor) -> torch.Tensor:
            return t.to(there)

        weights = (
            None
            if self._given_weights is None
            else torch.as_tensor(self._given_weights, dtype=torch.float64).to(there)
        )
        other = self._again(
            copy.deepcopy(self.module).to(there),
            (map_tensors(moved, self.inputs), map_tensors(moved, self.target)),
            copy.deepcopy(self.loss).to(there) if isinstance(self.loss, nn.Module) else self.loss,
            weights,
        )
        other.origin = self.origin
        return other.at(map_tensors(moved, self.overrides)) if self.overrides else other

    def with_batch(self, batch: tuple[Any, Any]) -> Problem:
        """The same problem on another batch; where its samples come from is not known of it.

        Args:
            batch: Inputs and target; they are moved to where the problem is.

        Raises:
            UsageError: The problem has weights (they are those of its own samples), or the batch does not fit.
        """
        if self.has_weights:
            raise UsageError("the problem's weights are those of its own batch's samples.")
        inputs, target = map_tensors(lambda t: t.to(self.device), tuple(batch))
        other = self._again(self.module, (inputs, target), self.loss, None)
        return other.at(self.overrides) if self.overrides else other

    def _again(
        self, module: nn.Module, batch: tuple[Any, Any], loss: str | Loss, weights: torch.Tensor | None
    ) -> Problem:
        """A problem with the same options."""
        return Problem(
            module,
            batch,
            loss,
            loss_per=self._wish,
            weights=weights,
            mode=self.mode,
            output=self.output,
            batch_axis=self._axis,
            precision=self.precision,
            name=self.name,
            facts=self.facts,
        )

    def evaluate(
        self,
        parameters: Mapping[str, torch.Tensor] | None = None,
        repeats: int = 1,
        sample: int | torch.Tensor | None = None,
        copies: int = 1,
        layout: str = "",
    ) -> torch.Tensor:
        """Losses of one forward.

        Args:
            parameters: Values that replace the model's own for this forward.
            repeats: How many times the batch is repeated along its axis, copy after copy.
            sample: Run this sample alone (``loss_per="sample"`` only); a tensor ``[]`` where ``vmap`` runs them all.
            copies: How many forwards (of one sample, if ``sample`` is given) this one stands for under ``vmap``; only
                counted.
            layout: ``"channels_last"`` lays out images in the inputs so; nothing by default.

        Returns:
            ``[repeats * B]`` losses of the samples, ``[1]`` for one sample, or the copy's loss ``[]``.
        """
        self.samples_run += (copies - 1) * (self.batch_size if sample is None else 1)
        return self._within(parameters or {}, lambda: self._evaluate(repeats, sample, layout))

    def evaluate_each(
        self, parameters: Mapping[str, torch.Tensor], steps: Iterable[None], layout: str = ""
    ) -> torch.Tensor:
        """Losses of one forward after another, with values that change in between; see :meth:`evaluate`.

        Putting values into a module takes longer than the forward of a small model: here that happens once.

        Args:
            parameters: Tensors that replace the model's own.
            steps: Each step writes the values of one forward into them.
            layout: As for :meth:`evaluate`.

        Returns:
            ``[n, B]``, or ``[n]`` for copies' losses.
        """
        if self.kept_apart:  # what a forward changes is put back after each
            return torch.stack([self.evaluate(parameters, layout=layout).clone() for _ in steps])
        return self._within(
            parameters, lambda: torch.stack([self._evaluate(1, None, layout).clone() for _ in steps])
        )

    def gradient(
        self,
        parameters: Mapping[str, torch.Tensor],
        leaves: Sequence[torch.Tensor],
        sample: int | None = None,
        objective: Callable[[Seen], torch.Tensor] | None = None,
    ) -> list[torch.Tensor | None]:
        """Gradient of the objective by backprop.

        Args:
            parameters: Values that replace the model's own, made of the leaves.
            leaves: What to differentiate with respect to.
            sample: Only this sample's term ``w_b L_b`` (``loss_per="sample"`` only).
            objective: What is differentiated instead, made of what the forward gave: for methods that cut the graph
                by hooks and put something else in its place.

        Returns:
            A dense gradient for each leaf; None where the loss does not depend on it.
        """

        def backward() -> list[torch.Tensor | None]:
            seen = self._see(sample)
            return _slopes(seen.total if objective is None else objective(seen), leaves)

        with torch.enable_grad():
            return self._within(parameters, backward)

    def gradient_of(
        self, batch: tuple[Any, Any], parameters: Mapping[str, torch.Tensor], leaves: Sequence[torch.Tensor]
    ) -> tuple[float, list[torch.Tensor | None]]:
        """Mean loss of another batch, of any size, and its gradient as :meth:`gradient` gives it.

        Args:
            batch: Inputs and target, where the problem is.
            parameters: Values that replace the model's own, made of the leaves.
            leaves: What to differentiate with respect to.
        """

        def backward() -> tuple[float, list[torch.Tensor | None]]:
            mean = self._losses(*batch).double().mean()
            return float(mean.detach()), _slopes(mean, leaves)

        with torch.enable_grad(), _told("the model or its loss fails on a batch of the data"):
            return self._within(parameters, backward)

    def mean_loss(self, batch: tuple[Any, Any]) -> float:
        """Mean loss of another batch, of any size."""
        with torch.no_grad():
            return float(self._run(*batch).double().mean())

    def count(self, forwards: int) -> None:
        """Count forward passes that did not go through :meth:`evaluate`."""
        self.samples_run += forwards * self.batch_size

    def total(self, losses: torch.Tensor) -> torch.Tensor:
        """``sum_b w_b L_b`` along the last axis, in float64; a copy's loss is returned as it is."""
        if self.loss_per == "copy" and losses.ndim == 0:
            return losses
        assert self.weights is not None
        return (losses.double() * self.weights).sum(-1)

    @contextmanager
    def frozen(self) -> Iterator[Problem]:
        """Promise that parameters and batch do not change inside: clean passes are computed once."""
        outer, self._cache = self._cache, self._cache if self._cache is not None else Remembered()
        try:
            yield self
        finally:
            self._cache = outer

    def memo(self, key: Any, compute: Callable[[], Any], size: Callable[[Any], int] | None = None) -> Any:
        """``compute()``, remembered while the problem is :meth:`frozen`.

        Args:
            key: What it is known by.
            compute: Makes it.
            size: Bytes of what is large: it may be forgotten for the sake of later ones (:meth:`limit_memory`).
        """
        return compute() if self._cache is None else self._cache.get(key, compute, size)

    def limit_memory(self, limit: float) -> None:
        """Bytes that large things remembered may take together, as long as the problem is :meth:`frozen`."""
        if self._cache is not None:
            self._cache.limit = limit
            self._cache.tidy()

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
        """SHA-256 of model, batch and loss; together with the clean losses, what makes two runs the same."""
        weights = None if self.weights is None else fingerprint.of_tensor(self.weights)
        loss: list[Any] = [fingerprint.name_of(self.loss), self.loss_per, self.mode, weights]
        if self.precision != "float32":
            loss.append(self.precision)
        if self.output is not None:
            loss.append(
                self.output if isinstance(self.output, (str, int)) else fingerprint.name_of(self.output)
            )
        return {
            "model": fingerprint.of_model(self.twin, {**self.parameters, **dict(self.twin.named_buffers())}),
            "batch": fingerprint.of_data(self.inputs, self.target),
            "loss": digest(loss),
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

    def _see(self, sample: int | None) -> Seen:
        """One forward, and what is made of it; of all samples, or of one."""
        inputs, target = self._data(1, sample)
        output = self._output(inputs)
        losses = self._loss(output, map_tensors(self._own, target))
        total = self.total(losses) if sample is None else (losses * self._weight(sample)).sum()
        return Seen(total, losses, output, inputs, target)

    def _evaluate(self, repeats: int, sample: int | torch.Tensor | None, layout: str = "") -> torch.Tensor:
        losses = self._losses(*self._data(repeats, sample, layout))
        if self.loss_per == "sample":
            return losses
        return losses if losses.ndim == 0 else self.total(losses)

    def _data(self, repeats: int, sample: int | torch.Tensor | None, layout: str = "") -> tuple[Any, Any]:
        """Inputs and target of a forward, which is counted."""
        self.samples_run += repeats * (self.batch_size if sample is None else 1)
        data = (self.inputs, self.target)
        if repeats > 1:
            data = self.rows.repeated(data, repeats)
        if sample is not None:
            data = self.rows.alone(data, sample)
        if layout == "channels_last":
            data = (map_tensors(_channels_last, data[0]), data[1])
        return data

    def __copy__(self) -> Problem:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: module and twin with the tensors they share, the batch, what was found out.

        What is remembered stays behind, and the data set. The batch is cloned: a slice of a data set would take all
        of it along.
        """
        state = self.__dict__ | {"_cache": None, "_structure": {}, "origin": None}
        del state["_loss"]
        with torch.no_grad():
            state["inputs"], state["target"] = copied(self.inputs), copied(self.target)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loss = find_loss(self.loss)

    def _losses(self, inputs: Any, target: Any) -> torch.Tensor:
        output = self._output(inputs)
        return self._loss(output, map_tensors(self._own, target))

    def _output(self, inputs: Any) -> Any:
        """What the loss is given."""
        args, kwargs = _arguments(map_tensors(self._own, inputs))  # a model may change its input in place
        return picked(self.twin(*args, **kwargs), self.output, named=isinstance(self.loss, str))

    def _as_run(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A value for a parameter that is run in a wider precision than its own, in that."""
        wide = torch.promote_types(value.dtype, like.dtype) == like.dtype
        return value.to(like.dtype) if wide and self._twin.widened else value

    def _own(self, t: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor of the batch, in the precision that is run."""
        wide = widen(t, self.precision)
        return t.clone() if wide is t else wide

    def _within(self, parameters: Mapping[str, torch.Tensor], function: Callable[[], Any]) -> Any:
        """Run a function while the twin has other values; state that a forward changes is cloned first."""
        values = self.overrides | dict(parameters)
        if self._changing:
            state = self._state() | self.overrides
            fresh = {name: state[name].detach().clone() for name in self._changing}
            values = self.overrides | fresh | dict(parameters)
        if self._cache is None:
            self._twin.follow()
        with standing_in(self._twin.listed), self._kept.put_back():
            if not values:
                return function()
            placed = {f"twin.{place}": v for name, v in values.items() for place in self._places[name]}
            return functional_call(Swapped(self.twin), placed, (function,), tie_weights=False)

    def _weight(self, sample: int) -> torch.Tensor:
        assert self.weights is not None
        return self.weights[sample]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the user's code in one sentence."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{what}: {type(error).__name__}: {reason}") from error


def _slopes(total: torch.Tensor, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Dense gradients; inside what computed the total: a checkpointed model runs again and must see its values."""
    if not total.requires_grad:
        return [None] * len(leaves)
    found = torch.autograd.grad(total, list(leaves), allow_unused=True)
    return [g.to_dense() if g is not None and g.is_sparse else g for g in found]


def _channels_last(t: torch.Tensor) -> torch.Tensor:
    """Images with their channels last in memory, by their strides also where there is but one channel."""
    if t.ndim != 4 or not t.is_floating_point():
        return t
    if t.shape[1] == 1:
        return t.contiguous().view(len(t), *t.shape[2:], 1).permute(0, 3, 1, 2)
    return t.contiguous(memory_format=torch.channels_last)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})
