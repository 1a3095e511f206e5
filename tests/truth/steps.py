"""Recurrent modules written down once more: textbook formulas, one step after the other.

Used by the naive loop where a layer's record speaks of steps. Nothing is shared with the package but the names
under which the record finds modules and parameters: ``l0``, ``l1_reverse``, ``l0_projection``, ``gates``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def taken_apart(model: nn.Module, paths: list[str]) -> nn.Module:
    """Replace each module that has no submodule of a path but should."""
    for path in paths:
        if path not in dict(model.named_modules()):
            owner = path.rpartition(".")[0]
            above, _, name = owner.rpartition(".")
            old = model.get_submodule(owner)
            new = Cell(old) if isinstance(old, nn.RNNCellBase) else Sequence(old)
            setattr(model.get_submodule(above), name, new)
    return model


class Step(nn.Module):
    """Every sum of a step that a nonlinearity is applied to."""

    def __init__(self, old: nn.Module, end: str) -> None:
        super().__init__()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.register_parameter(name, getattr(old, name + end, None))
        self.kind = type(old).__name__.removesuffix("Cell")
        self.bend = getattr(old, "nonlinearity", None)

    def forward(self, x, h):
        from_x = torch.einsum("oi,bi->bo", self.weight_ih, x)
        from_h = torch.einsum("oj,bj->bo", self.weight_hh, h)
        if self.bias_ih is not None:
            from_x, from_h = from_x + self.bias_ih, from_h + self.bias_hh
        if self.kind != "GRU":
            return from_x + from_h
        (rx, zx, nx), (rh, zh, nh) = from_x.split(h.shape[1], 1), from_h.split(h.shape[1], 1)
        return torch.hstack([rx + rh, zx + zh, nx, nh])

    def after(self, sums, h, c):
        """Next hidden state and cell state (None where there is none)."""
        size = len(self.weight_hh) // {"LSTM": 4, "GRU": 3, "RNN": 1}[self.kind]
        parts = sums.split(size, 1)
        if self.kind == "RNN":
            return (parts[0].clamp(min=0) if self.bend == "relu" else parts[0].tanh()), None
        if self.kind == "GRU":
            reset, update = parts[0].sigmoid(), parts[1].sigmoid()
            return h + (1 - update) * ((parts[2] + reset * parts[3]).tanh() - h), None
        c = parts[1].sigmoid() * c + parts[0].sigmoid() * parts[2].tanh()
        return parts[3].sigmoid() * c.tanh(), c


class Cell(nn.Module):
    """One step of a batch."""

    def __init__(self, old: nn.Module) -> None:
        super().__init__()
        self.gates, self.size = Step(old, ""), old.hidden_size

    def forward(self, x, state=None):
        if state is None:
            state = torch.zeros(2, len(x), self.size, dtype=x.dtype)
        h, c = state if self.gates.kind == "LSTM" or len(state) == 2 else (state, None)
        h, c = self.gates.after(self.gates(x, h), h, c)
        return h if c is None else (h, c)


class Sequence(nn.Module):
    """All layers and directions over all steps; no state is given."""

    def __init__(self, old: nn.Module) -> None:
        super().__init__()
        self.old = [old]  # in a list: not a submodule
        self.ends = [(f"l{k}", f"l{k}_reverse")[: 1 + old.bidirectional] for k in range(old.num_layers)]
        for end in (end for pair in self.ends for end in pair):
            self.add_module(end, Step(old, f"_{end}"))
            if old.proj_size:
                down = nn.Linear(old.hidden_size, old.proj_size, bias=False)
                down.weight = getattr(old, f"weight_hr_{end}")
                self.add_module(f"{end}_projection", down)

    def forward(self, given):
        (old,) = self.old
        packed = isinstance(given, PackedSequence)
        x, lengths = pad_packed_sequence(given) if packed else (given, None)
        x = x.transpose(0, 1) if old.batch_first and not packed else x
        lengths = torch.full((x.shape[1],), len(x)) if lengths is None else lengths
        hidden, cells = [], []
        for pair in self.ends:
            found = [self.one_way(end, x, lengths) for end in pair]
            x = torch.cat([outputs for outputs, _, _ in found], 2)
            hidden += [h for _, h, _ in found]
            cells += [c for _, _, c in found]
        if packed:
            x = pack_padded_sequence(x, lengths, enforce_sorted=False)
        elif old.batch_first:
            x = x.transpose(0, 1)
        last = torch.stack(hidden)
        return x, ((last, torch.stack(cells)) if cells[0] is not None else last)

    def one_way(self, end, x, lengths):
        (old,) = self.old
        step = getattr(self, end)
        h = torch.zeros(x.shape[1], old.proj_size or old.hidden_size, dtype=x.dtype)
        c = torch.zeros(x.shape[1], old.hidden_size, dtype=x.dtype) if step.kind == "LSTM" else None
        outputs = {}
        for t in range(len(x))[:: -1 if end.endswith("reverse") else 1]:
            goes_on = (t < lengths)[:, None]
            new_h, new_c = step.after(step(x[t], h * goes_on), h, c)  # past the end: no input, no state
            if old.proj_size:
                new_h = getattr(self, f"{end}_projection")(new_h)
            h = torch.where(goes_on, new_h, h)
            c = None if c is None else torch.where(goes_on, new_c, c)
            outputs[t] = h
        return torch.stack([outputs[t] for t in range(len(x))]), h, c
