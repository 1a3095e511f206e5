"""The part of a forward that depends on the noise, as a flat list of torch operations; the rest is computed once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, intercept, map_tensors, tensors
from gradprobe.core.layer import paths
from gradprobe.engine.forward_mode import derivative, forward_mode
from gradprobe.engine.memory import bytes_of, is_out_of_memory
from gradprobe.engine.moving import moved_losses
from gradprobe.engine.reuse import without_copies, write_over
from gradprobe.engine.sites import Forward, Segment, Site, add_noise, check_calls, noise_at, shifted
from gradprobe.engine.storing import Storing

NODE = 2_000
"""Bytes of an operation of a trace, about."""

Kept = dict[Site, list[torch.Tensor]]


class OneCopy:
    """Losses and noisy inputs of one copy, as a function of its noise at each site.

    Of a draw that measures derivatives, these; there are no noisy inputs then.

    Args:
        forward: What to run.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.sites = list(forward.noise)
        self.seen: dict[Site, tuple[str, Any, Any]] = {}

    def __call__(self, *eps: torch.Tensor) -> tuple[torch.Tensor, Kept]:
        """Losses ``[B]`` or ``[]``, and the tensors that calls with a noisy input saw."""
        if not self.forward.draw.derived:
            return self._run(*eps)
        with forward_mode():
            return derivative(self._run, eps), {}

    def _run(self, *eps: torch.Tensor) -> tuple[torch.Tensor, Kept]:
        problem, draw, layers = self.forward.problem, self.forward.draw, self.forward.layers
        copies, layout = self.forward.copies, self.forward.layout
        current, kept = dict(zip(self.sites, eps, strict=True)), Kept()
        if draw.where == "weights":
            return moved_losses(self.forward, shifted(problem, draw, layers, current)), kept

        def edit(call: Call, output: Any) -> Any:
            if self.forward.later(call):
                site = (call.layer, call.number)
                self.seen[site] = (call.path, call.args, call.kwargs)
                kept[site] = tensors((call.args, call.kwargs))
            return add_noise(output, draw, call.layer, noise_at(current, call))

        with intercept(problem.twin, paths(layers), edit, self.forward.later) as calls:
            calls.restart()
            losses = problem.evaluate(copies=copies, layout=layout)
            check_calls(calls.counts, layers)
        return losses, kept


class Graph:
    """A traced :class:`OneCopy`: what does not depend on the noise is folded into constants.

    It holds only while the problem is frozen, and only for this memory layout.

    Args:
        forward: What to trace, with noise of one copy at least.

    Attributes:
        run: The traced function of the noise.
        seen: For each call with a noisy input, what it saw, with tensors left empty.
        bytes: About what it holds besides the model's own parameters.

    Raises:
        UsageError: The forward cannot be traced, or changes its state in place.
    """

    def __init__(self, forward: Forward) -> None:
        one = OneCopy(forward)
        example = [eps[0] for eps in forward.noise.values()]
        self.run, constants = _traced(one, example)
        own = {p.untyped_storage().data_ptr() for p in forward.problem.parameters.values()}
        kept = [t for t in constants if t.untyped_storage().data_ptr() not in own]
        self.bytes = bytes_of(kept) + NODE * len(self.run.graph.nodes)
        empty = torch.empty(0)
        self.seen = {
            site: (path, *map_tensors(lambda t: empty, (args, kwargs)))
            for site, (path, args, kwargs) in one.seen.items()
        }


def segment(k: int, seen: Mapping[Site, tuple[str, Any, Any]], kept: Kept, storing: Storing) -> Segment:
    """The noisy inputs of copy ``k`` from the tensors that were kept of it."""
    found = Segment(slice(k, k + 1))
    for site, (path, args, kwargs) in seen.items():
        values = iter(kept[site])
        args, kwargs = map_tensors(lambda t, v=values: next(v), (args, kwargs))  # type: ignore[misc]  # mypy knows no such defaults
        found.keep(site, (path, args, kwargs), storing)
    return found


def _traced(one: OneCopy, example: list[torch.Tensor]) -> tuple[fx.GraphModule, list[torch.Tensor]]:
    """A trace and its constants: without in-place operations, or with them where a function allows nothing else."""
    from torch.fx.experimental.proxy_tensor import make_fx

    why = ""
    for function in (torch.func.functionalize(one), one):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _one_fake_mode(), _Unread(), _FixedShapes():
                    found = make_fx(function)(*example)
                found = _folded(found)
                if one.forward.draw.derived:
                    without_copies(found)
                write_over(found)
                return _bare(found)
        except Exception as error:  # whatever it is: this forward runs as it is then
            if is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {error}"
    raise UsageError(f"the forward cannot be traced ({why})")


def _one_fake_mode() -> AbstractContextManager[Any]:
    """Let torch note what it traces in one fake mode: of itself it makes one for each tensor, a third of the time."""
    try:
        from torch._guards import TracingContext, tracing
        from torch._subclasses.fake_tensor import FakeTensorMode

        return tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))
    except (ImportError, TypeError):  # not public: another torch may have changed them, and it works without
        return nullcontext()


class _Unread(TorchFunctionMode):
    """Refuses what reads numbers out of tensors behind the back of a trace."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("numpy", "tolist", "__array__", "data_ptr", "__dlpack__"):
            raise UsageError("the forward reads numbers out of its tensors")
        return func(*args, **(kwargs or {}))


class _FixedShapes(TorchDispatchMode):
    """Refuses shapes that depend on values: their sizes would become constants."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        masks = func is torch.ops.aten.index.Tensor and any(
            t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        dynamic = torch.Tag.dynamic_output_shape in func.tags and func is not torch.ops.aten.index.Tensor
        if masks or dynamic:
            raise UsageError(f"a shape depends on values ({func})")
        return func(*args, **(kwargs or {}))


def _folded(module: fx.GraphModule) -> fx.GraphModule:
    """Compute every operation that no input reaches, once."""
    noisy: set[fx.Node] = set()
    lasting: set[int] = set()  # memory of constants and of clean values that something noisy has read
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder" or any(source in noisy for source in node.all_input_nodes):
            _refuse_changes(
                node, [a for a in node.all_input_nodes if a not in noisy or a.op == "placeholder"]
            )
            noisy.add(node)
            lasting.update(*(_memory(values[a]) for a in node.all_input_nodes if a in values))
        elif node.op == "get_attr":
            values[node] = _attribute(module, node.target)
            lasting |= _memory(values[node])
        elif node.op == "call_function":
            _refuse_changes(node, [a for a in node.all_input_nodes if lasting & _memory(values[a])])
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: values[source])
            values[node] = node.target(*args, **kwargs)
    for node, value in values.items():
        users = [user for user in node.users if user not in values]
        if node.op != "get_attr" and users:
            name = f"folded_{node.name}"
            setattr(module, name, value)
            with module.graph.inserting_before(node), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is folded may be a list or a number
                constant = module.graph.get_attr(name)
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
    for node in reversed(module.graph.nodes):
        if node in values and not node.users:  # also what was written in place: that is done
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _memory(value: Any) -> set[int]:
    """Where the tensors of a value lie."""
    return {t.untyped_storage()._cdata for t in tensors(value)}


def _bare(module: fx.GraphModule) -> tuple[fx.GraphModule, list[torch.Tensor]]:
    """The same operations and their constants, without tracing's notes: they take ten times the memory and more."""
    graph = fx.Graph()
    result = graph.graph_copy(module.graph, {})
    graph.output(result)
    constants = {str(n.target): _attribute(module, n.target) for n in graph.nodes if n.op == "get_attr"}
    for node in graph.nodes:
        node.meta.clear()
    return fx.GraphModule(constants, graph), tensors(constants)


def _refuse_changes(node: fx.Node, of: list[fx.Node]) -> None:
    """Refuse an operation that writes to one of these; what only clean forwards write to is folded as it is left."""
    schema = getattr(node.target, "_schema", None)
    written: list[Any] = []
    for i, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            written += value if isinstance(value, (list, tuple)) else [value]
    if any(value in of for value in written if isinstance(value, fx.Node)):
        raise UsageError(f"the forward changes a tensor in place ({node.target})")


def _attribute(module: fx.GraphModule, name: Any) -> Any:
    value: Any = module
    for part in str(name).split("."):
        value = getattr(value, part)
    return value
