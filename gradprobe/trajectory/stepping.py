"""Steps of walkers with one optimiser: as rows of one tensor where it treats every number alike, else one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from gradprobe.core import spec
from gradprobe.core.errors import UsageError, described, unknown

Factory = Callable[..., torch.optim.Optimizer]

TRIAL_STEPS, TRIAL_RATE = 5, 0.01


class Stepper:
    """Moves walkers, each by its own rate.

    Args:
        factory: Makes an optimiser from parameters (or groups of them) and ``lr``.
        positions: ``[W, d]``.
        rates: Learning rate of each walker, ``[W]``.
        decay: The rate of step k is ``rate / (1 + decay k)``.
    """

    def __init__(
        self, factory: Factory, positions: torch.Tensor, rates: torch.Tensor, decay: float = 0.0
    ) -> None:
        values, self.group = torch.unique(rates, return_inverse=True)
        self.rates, self.decay = values.tolist(), decay
        self.rows = [torch.nonzero(self.group == g)[:, 0] for g in range(len(values))]
        alone = not acts_on_numbers(factory, positions.shape[1])
        self.parameters = [_parameters(positions[rows], alone) for rows in self.rows]
        groups = [{"params": p, "lr": r} for p, r in zip(self.parameters, self.rates, strict=True)]
        self.optimizer = factory(groups, lr=self.rates[0])

    def step(self, positions: torch.Tensor, directions: torch.Tensor, number: int) -> torch.Tensor:
        """One step from where the walkers are.

        Args:
            positions: ``[W, d]``; may differ from where the last step ended (projection).
            directions: ``[W, d]``.
            number: Number of the step, from 0.

        Returns:
            New positions ``[W, d]``.
        """
        moved = torch.empty_like(positions)
        with torch.no_grad():
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate / (1 + self.decay * number)
            for rows, parameters in zip(self.rows, self.parameters, strict=True):
                _set(parameters, positions[rows], directions[rows])
            self.optimizer.step()
            for rows, parameters in zip(self.rows, self.parameters, strict=True):
                moved[rows] = torch.cat([p.view(-1, positions.shape[1]) for p in parameters])
        return moved


def find_optimizer(given: Any) -> tuple[str, Factory]:
    """An optimiser by name with options (``"sgd(momentum=0.9)"``), as a class, or as a factory.

    Args:
        given: A name of ``torch.optim`` in any case, or a callable ``(parameters, lr=...) -> Optimizer``.

    Returns:
        How to write it down, and a factory.

    Raises:
        UsageError: There is no such optimiser, or its step needs more than a gradient.
    """
    if isinstance(given, str):
        wanted = spec.parse(given)
        known = {
            name.lower(): item
            for name, item in vars(torch.optim).items()
            if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer) and name != "Optimizer"
        }
        if wanted.name.lower() not in known:
            raise unknown("optimizer", wanted.name, sorted(known))
        if "lr" in wanted.options:
            raise UsageError("give the learning rate as lr=, not as an option of the optimizer.")
        base: Factory = known[wanted.name.lower()]
        label, options = str(wanted), dict(wanted.options)

        def factory(parameters: Any, lr: float) -> torch.optim.Optimizer:
            return base(parameters, lr=lr, **options)

    elif callable(given):
        label, factory = getattr(given, "__name__", str(given)), given
    else:
        raise UsageError(
            f"optimizer must be a name such as 'sgd', or a class of torch.optim, not {described(given)}."
        )
    try:
        _trial(factory, [torch.zeros(2, 1, dtype=torch.float64)], torch.ones(1, 2, dtype=torch.float64))
    except Exception as error:
        why = "its step asks for losses along the way" if "closure" in str(error) else str(error)
        raise UsageError(f"the optimizer {label} does not work here: {why}; 'sgd' and 'adam' do.") from error
    return label, factory


def acts_on_numbers(factory: Factory, dims: int) -> bool:
    """Whether an optimiser treats every number of a parameter alike, so that walkers can share one tensor."""
    gradients = torch.sin(torch.arange(TRIAL_STEPS * 3 * dims, dtype=torch.float64)).view(
        TRIAL_STEPS, 3, dims
    )
    together = [torch.linspace(-1, 1, 3 * dims, dtype=torch.float64).view(3, dims, 1)]
    alone = [p.clone() for p in together[0]]
    _trial(factory, together, gradients)
    _trial(factory, alone, gradients)
    return torch.equal(together[0], torch.stack(alone))


def _trial(factory: Factory, values: list[torch.Tensor], gradients: torch.Tensor) -> None:
    """Step parameters, in place, through gradients ``[steps, ...]`` that are shared out among them."""
    parameters = [v.requires_grad_() for v in values]
    optimizer = factory(parameters, lr=TRIAL_RATE)
    for gradient in gradients:
        rows = gradient.reshape(len(parameters), -1)
        for p, g in zip(parameters, rows, strict=True):
            p.grad = g.reshape(p.shape).clone()
        optimizer.step()
    for p in parameters:
        p.requires_grad_(False)


def _parameters(positions: torch.Tensor, alone: bool) -> list[torch.Tensor]:
    """One parameter ``[W, d, 1]``, or W parameters ``[d, 1]``: the shape of a function's weights."""
    wide = positions[:, :, None]
    return [p.clone().requires_grad_() for p in (wide.unbind(0) if alone else [wide])]


def _set(parameters: list[torch.Tensor], positions: torch.Tensor, directions: torch.Tensor) -> None:
    for p, x, g in zip(
        parameters,
        positions.chunk(len(parameters)),
        directions.chunk(len(parameters)),
        strict=True,
    ):
        p.copy_(x.reshape(p.shape))
        p.grad = g.reshape(p.shape).clone()
