"""Evaluating a function at many points: what a loop over the points would give, and faster where possible."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from gradprobe.core.errors import UsageError, described

Values = Callable[[torch.Tensor], torch.Tensor]


class Way(NamedTuple):
    """How a function is evaluated at points ``[k, d]``, and whether that is faster than a loop over them."""

    values: Values
    at_once: bool


def find_way(function: Callable[..., torch.Tensor], start: tuple[float, ...], batched: bool) -> Way:
    """The function of points ``[k, d]``: at once if it is made for that, else by ``vmap``, else by a loop.

    A function that is not known to take many points is not given them, also if that agrees with a loop here: an
    ``if`` on all points at once may go another way elsewhere. Under ``vmap`` each point is alone.

    Raises:
        UsageError: It fails on a single point.
    """
    one = _of_a_point(function, len(start))

    def loop(points: torch.Tensor) -> torch.Tensor:
        return torch.stack([_number(one(p.clone()), p) for p in points.unbind(0)])

    def at_once(points: torch.Tensor) -> torch.Tensor:
        return one(points.clone()).to(torch.float64)

    def by_vmap(points: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(lambda p: _number(one(p.clone()), p))(points)

    centre = torch.tensor(start, dtype=torch.float64)
    # more points than variables, so that a function that takes the first axis for coordinates is found out
    steps = torch.linspace(-0.3, 0.5, len(start) + 3, dtype=torch.float64)
    points = centre + steps[:, None] * torch.arange(1, len(start) + 1, dtype=torch.float64).sqrt()
    try:
        with torch.no_grad():
            loop(centre[None])
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the function fails at {start}: {type(error).__name__}: {error}") from error
    try:
        with torch.no_grad():
            expected = loop(points)
    except Exception:  # it need not work everywhere
        return Way(loop, False)
    for way in (at_once, by_vmap) if batched else (by_vmap,):
        try:
            with torch.no_grad():
                found = way(points)
            if found.shape == expected.shape and torch.allclose(
                found, expected, rtol=1e-12, atol=1e-12, equal_nan=True
            ):
                return Way(way, True)
        except Exception:  # whatever it is, the loop is right
            continue
    return Way(loop, False)


def gradients_pass(values: Values, gradient: Values, start: tuple[float, ...]) -> bool:
    """Whether gradients by backprop are those of the function, near its start.

    Central differences at two steps decide, for each variable at three points: where they agree to 1 % and the
    gradient is off by more than 10 %, it is not the function's. Where they do not agree (kinks, jumps) it may be.

    Args:
        values: Points ``[k, d]`` -> values.
        gradient: Points ``[k, d]`` -> gradients.
        start: A point.
    """
    centre = torch.tensor(start, dtype=torch.float64)
    # beside the start, which may well be on a kink
    points = centre + torch.tensor([[0.0059], [0.0131], [-0.0172]], dtype=torch.float64) * (1 + centre.abs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a tensor that becomes a number; the answer says more
        try:
            found = gradient(points)
            with torch.no_grad():
                near, far = (_differences(values, points, h) for h in (1e-4, 2e-4))
        except Exception:  # numpy refuses tensors that need gradients, for one
            return False
    size = torch.maximum(near.abs(), far.abs()).amax(1, keepdim=True)
    sure = (near - far).abs() <= 0.01 * torch.maximum(near.abs(), far.abs())
    wrong = (found - near).abs() > 0.1 * near.abs() + 1e-6 * size
    return not bool((sure & wrong).any())


def _differences(values: Values, points: torch.Tensor, step: float) -> torch.Tensor:
    """Central differences ``[k, d]``."""
    shifts = step * torch.eye(points.shape[1], dtype=torch.float64)
    up, down = (values((points[:, None] + sign * shifts).flatten(0, 1)) for sign in (1, -1))
    return ((up - down) / (2 * step)).view(points.shape)


def _of_a_point(function: Callable[..., torch.Tensor], dims: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """``f(p)`` from ``f(p)`` or ``f(x, y, ...)``, told apart by how many arguments it needs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) == 1 or (not needed and len(positional) == 1):
        return function
    if len(needed) not in (0, dims):
        raise UsageError(
            f"the function takes {len(needed)} arguments and the start has {dims} coordinates; it must take one "
            "point, or as many coordinates."
        )
    # clones: a function may change its arguments in place, which views of one tensor do not allow
    return lambda p: function(*(x.clone() for x in p.unbind(-1)))


def _number(value: Any, point: torch.Tensor) -> torch.Tensor:
    """The one number that a function returned.

    Raises:
        UsageError: It is not one.
    """
    if not isinstance(value, torch.Tensor):
        raise UsageError(
            f"the function returns {described(value)}; it must return a tensor (use torch.sin, not math.sin)."
        )
    if value.numel() != 1:
        raise UsageError(
            f"the function returns shape {list(value.shape)} for one point of {len(point)} coordinates; it must "
            "return one number."
        )
    return value.reshape(()).to(torch.float64)
