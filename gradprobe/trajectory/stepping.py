"""Steps of walkers: rows of one tensor where an optimiser treats every number alike, else an optimiser for each."""

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
        factory: Makes an optimiser from parameters and ``lr``.
        positions: ``[W, d]``.
        rates: Learning rate of each walker, ``[W]``.
        decay: The rate of step k is ``rate / (1 + decay k)``.
    """

    def __init__(
        self, factory: Factory, positions: torch.Tensor, rates: torch.Tensor, decay: float = 0.0
    ) -> None:
        self.decay = decay
        if acts_on_numbers(factory, positions.shape[1]):
            values, group = torch.unique(rates, return_inverse=True)
            self.rates = values.tolist()
            self.rows = [torch.nonzero(group == g)[:, 0] for g in range(len(values))]
            first = [positions[rows, :, None] for rows in self.rows]
        else:
            self.rates = rates.tolist()
            self.rows = list(torch.arange(len(rates))[:, None])
            first = [x[:, None] for x in positions]
        self.parameters = [x.clone().requires_grad_() for x in first]
        self.optimizers = [factory([p], lr=r) for p, r in zip(self.parameters, self.rates, strict=True)]
        self.first_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]

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
            if self.decay:
                self._decay(number)
            for rows, p, optimizer in zip(self.rows, self.parameters, self.optimizers, strict=True):
                p.copy_(positions[rows].view(p.shape))
                p.grad = directions[rows].reshape(p.shape).clone()
                optimizer.step()
                moved[rows] = p.view(len(rows), -1)
        return moved

    def _decay(self, number: int) -> None:
        for optimizer, rates in zip(self.optimizers, self.first_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate / (1 + self.decay * number)


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
        if wanted.argument:
            raise UsageError(
                f"options of the optimizer are written name=value, and {wanted.argument!r} is none."
            )
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
    """Whether walkers can share one tensor: each moves as with an optimiser of its own.

    Gradients from 0.01 to 10^6 are tried, so that it is seen where lengths are cut at some size.
    """
    gradients = torch.sin(torch.arange(TRIAL_STEPS * 3 * dims, dtype=torch.float64)).view(
        TRIAL_STEPS, 3, dims
    )
    gradients *= 10.0 ** torch.arange(-2, 2 * TRIAL_STEPS - 2, 2, dtype=torch.float64)[:, None, None]
    together = [torch.linspace(-1, 1, 3 * dims, dtype=torch.float64).view(3, dims, 1)]
    alone = [p.clone() for p in together[0]]
    try:
        _trial(factory, together, gradients)
    except Exception:  # some take matrices only, the shape of a function's weights
        return False
    for k, p in enumerate(alone):
        _trial(factory, [p], gradients[:, k])
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
