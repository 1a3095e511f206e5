"""Backward passes written out in NumPy, with whatever way back to a layer's input one likes. No torch in here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Dense:
    """``y = x W^T + b``."""

    weight: Array
    bias: Array

    def forward(self, x: Array) -> Array:
        self.x = x.reshape(len(x), -1)
        return np.array([[sum(w * v) for w in self.weight] for v in self.x]) + self.bias

    def slopes(self, delta: Array) -> tuple[Array, Array]:
        return sum(np.outer(d, v) for d, v in zip(delta, self.x, strict=True)), delta.sum(0)

    def back(self, delta: Array, matrix: Array) -> Array:
        return delta @ matrix


@dataclass
class Conv:
    """A two-dimensional convolution with zeros around, as a sum over every place and every entry of the kernel."""

    weight: Array
    bias: Array
    stride: int
    padding: int

    def forward(self, x: Array) -> Array:
        self.x = np.pad(x, ((0, 0), (0, 0), *[(self.padding, self.padding)] * 2))
        height, width = (1 + (n - k) // self.stride for n, k in self._sizes())
        y = np.zeros((len(x), len(self.weight), height, width))
        for n, o, i, j in np.ndindex(y.shape):
            y[n, o, i, j] = (self._patch(self.x, n, i, j) * self.weight[o]).sum() + self.bias[o]
        return y

    def slopes(self, delta: Array) -> tuple[Array, Array]:
        weight = np.zeros_like(self.weight)
        for n, o, i, j in np.ndindex(delta.shape):
            weight[o] += delta[n, o, i, j] * self._patch(self.x, n, i, j)
        return weight, delta.sum((0, 2, 3))

    def back(self, delta: Array, matrix: Array) -> Array:
        found = np.zeros_like(self.x)
        for n, o, i, j in np.ndindex(delta.shape):
            self._patch(found, n, i, j)[...] += delta[n, o, i, j] * matrix[o]
        inner = slice(self.padding, -self.padding or None)
        return found[:, :, inner, inner]

    def _sizes(self) -> list[tuple[int, int]]:
        return list(zip(self.x.shape[2:], self.weight.shape[2:], strict=True))

    def _patch(self, x: Array, n: int, i: int, j: int) -> Array:
        rows, columns = (
            slice(at * self.stride, at * self.stride + k)
            for at, k in zip((i, j), self.weight.shape[2:], strict=True)
        )
        return x[n, :, rows, columns]


Layer = Dense | Conv
Way = Callable[[int, Array, Array], Array]
"""Number of a layer, error at its output, error at the model's output: error at its input, of the input's size."""


def backward(
    layers: list[Layer], x: Array, classes: Array, way: Way, relu: bool
) -> list[tuple[Array, Array]]:
    """Slopes of weight and bias of each layer, for the mean cross entropy.

    Args:
        layers: The layers, with tanh or relu between them.
        x: Inputs.
        classes: Class of each sample.
        way: How the error comes from a layer's output to its input.
        relu: Which of the two.
    """
    outputs, h = [], x
    for number, layer in enumerate(layers):
        a = layer.forward(h)
        h = a if number == len(layers) - 1 else np.maximum(a, 0) if relu else np.tanh(a)
        outputs.append(h)
    share = np.exp(h) / np.exp(h).sum(1, keepdims=True)
    error = delta = (share - np.eye(h.shape[1])[classes]) / len(x)
    found = []
    for number in reversed(range(len(layers))):
        found.append(layers[number].slopes(delta))
        if number:
            before = outputs[number - 1]
            slope = before > 0 if relu else 1 - before**2
            delta = way(number, delta, error).reshape(before.shape) * slope
    return found[::-1]


def plain_rnn(weights: dict[str, Array], x: Array, target: Array, head: Callable, earlier: Callable) -> dict:
    """Slopes of h' = tanh(W x + b + U h + c), y = V h_T + d with the mean square error.

    Args:
        weights: ``w u b c v d``.
        x: ``[B, T, D]``.
        target: ``[B, O]``.
        head: Error at the model's output -> error at its input, the last state.
        earlier: Error at a step's pre-activation, error at the model's output -> error at the state before the step.
    """
    states = [np.zeros((len(x), len(weights["u"])))]
    for t in range(x.shape[1]):
        inner = x[:, t] @ weights["w"].T + weights["b"] + states[-1] @ weights["u"].T + weights["c"]
        states.append(np.tanh(inner))
    error = 2 * (states[-1] @ weights["v"].T + weights["d"] - target) / target.size
    found = {name: np.zeros_like(value) for name, value in weights.items()}
    found |= {"v": error.T @ states[-1], "d": error.sum(0)}
    at_state = head(error)
    for t, (before, after) in reversed(list(enumerate(itertools.pairwise(states)))):
        delta = at_state * (1 - after**2)
        found["w"] += delta.T @ x[:, t]
        found["u"] += delta.T @ before
        found["b"] += delta.sum(0)
        found["c"] += delta.sum(0)
        at_state = earlier(delta, error)
    return found
