"""Convolutions are pulled back directly only where the module does nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradprobe.layers.conv import ConvRule
from gradprobe.layers.generic import Generic


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, (weight - weight.mean()) / weight.std(), bias)


class WithMore(nn.Conv2d):
    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.ones(1))


def hooked() -> nn.Module:
    module = nn.Conv2d(2, 3, 3)
    module.register_forward_hook(lambda module, args, output: 2 * output)
    return module


MODULES = {
    "plain": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "no bias, stride, dilation": lambda: nn.Conv2d(2, 3, 3, stride=2, dilation=2, padding=2, bias=False),
    "groups": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "same": lambda: nn.Conv2d(2, 3, 3, padding="same"),
    "circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "transposed": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1, padding=1),
    "hooked": hooked,
    "standardised": lambda: Standardised(2, 3, 3),
    "more parameters": lambda: WithMore(2, 3, 3),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(2, 3, 3)).eval(),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", list(MODULES))
def test_as_by_autograd_through_the_module(name: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().double()
    x = torch.randn(4, 2, 9, 9).double().contiguous(memory_format=layout)
    with torch.no_grad():
        cotangent = torch.randn_like(module(x))
    own = [n for n, _ in module.named_parameters()]
    values = {n: t.detach().clone() for n, t in [*module.named_parameters(), *module.named_buffers()]}
    for encode in (False, True):
        given = torch.sign(x) if encode else x
        want = Generic().pull_back(module, own, values, (given,), {}, cotangent)
        got = ConvRule().pull_back(module, own, values, (x,), {}, cotangent, encode)
        assert got.keys() == want.keys()
        assert all(torch.allclose(got[n], want[n], rtol=1e-10, atol=1e-12) for n in want)
