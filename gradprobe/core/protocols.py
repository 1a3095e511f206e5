"""What layers and engine need of a problem, whose own level they do not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn


class Runnable(Protocol):
    """A model with a batch and a loss that can be evaluated with other values; see ``Problem``."""

    @property
    def twin(self) -> nn.Module:
        """The module that is run."""
        ...

    @property
    def names(self) -> Mapping[int, str]:
        """Identity of each parameter of the twin -> its name."""
        ...

    @property
    def fused(self) -> Mapping[str, str]:
        """Path of each recurrent module of the twin whose steps are hidden -> why they are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Current values by name."""
        ...

    @property
    def inputs(self) -> Any:
        """What the model is called with."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples in the batch."""
        ...

    @property
    def batch_axis(self) -> int:
        """Axis of the samples in the inputs."""
        ...

    @property
    def loss_per(self) -> str:
        """``"sample"`` or ``"copy"``."""
        ...

    def evaluate(
        self,
        parameters: Mapping[str, torch.Tensor] | None = None,
        repeats: int = 1,
        sample: int | torch.Tensor | None = None,
        copies: int = 1,
        layout: str = "",
    ) -> torch.Tensor:
        """Losses of one forward."""
        ...

    def evaluate_each(
        self, parameters: Mapping[str, torch.Tensor], steps: Iterable[None], layout: str = ""
    ) -> torch.Tensor:
        """Losses of one forward after another, with values that change in between."""
        ...

    def count(self, forwards: int) -> None:
        """Count forward passes that did not go through :meth:`evaluate`."""
        ...

    def total(self, losses: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the samples' losses."""
        ...

    def memo(self, key: Any, compute: Callable[[], Any], size: Callable[[Any], int] | None = None) -> Any:
        """What is computed once while parameters and batch do not change."""
        ...

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What is computed once for good."""
        ...

    def gradient(
        self,
        parameters: Mapping[str, torch.Tensor],
        leaves: Sequence[torch.Tensor],
        sample: int | None = None,
        objective: Callable[[Any], torch.Tensor] | None = None,
    ) -> list[torch.Tensor | None]:
        """Gradient of the objective by backprop."""
        ...
