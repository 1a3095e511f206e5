"""``name(option=value, ...)``: parsing what users write, and the one canonical way to write it back.

A value may be of that form itself, as in ``es(noise=low-rank(rank=4))``: it is the canonical string of what it says.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from gradprobe.core.errors import UsageError


@dataclass(frozen=True)
class Spec:
    """A registered name and the options given to it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return label(self.name, self.options)


def parse(text: str) -> Spec:
    """Parse ``"lr(noise=rademacher, sigma=0.1)"``.

    Args:
        text: A name, optionally followed by options in brackets. Values are Python literals; a bare word is
            a string, and so is a name with options of its own.

    Returns:
        Name and options.

    Raises:
        UsageError: The text is not of that form.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Spec(name.strip())
    wrong = UsageError(f"cannot read {text!r}; write it as name(option=value, option=value).")
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: brackets without end
        raise wrong from None
    if not isinstance(call, ast.Call):
        raise wrong
    try:
        return Spec(name.strip(), _options(call))
    except ValueError:
        raise wrong from None


def split(text: str) -> list[str]:
    """Split ``"lr,es(sigma=0.1, noise=laplace)"`` at the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts if p.strip()]


def label(name: str, options: Mapping[str, Any]) -> str:
    """Canonical string of a name and options: keys sorted, numbers and words written one way only."""
    if not options:
        return name
    inner = ", ".join(f"{key}={_text(options[key])}" for key in sorted(options))
    return f"{name}({inner})"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no free choice of spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _options(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments of a call.

    Raises:
        ValueError: It has others, or one twice.
    """
    keys = [k.arg for k in call.keywords]
    if call.args or None in keys or len(set(keys)) < len(keys):
        raise ValueError
    return {str(k.arg): _value(k.value) for k in call.keywords}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return label(node.func.id, _options(node))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        if isinstance(node.right, (ast.Name, ast.Call)):
            return f"{_value(node.left)}-{_value(node.right)}"  # a word with a hyphen
    return ast.literal_eval(node)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if _is_word(value) or _is_canonical(value) else repr(value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_text(value[k])}" for k in sorted(value)) + "}"
    return repr(value)


def _is_word(text: str) -> bool:
    return text.replace("-", "_").isidentifier() and not iskeyword(text)


def _is_canonical(text: str) -> bool:
    """Whether it is a name with options, written the canonical way, so that it needs no quotes."""
    head, bracket, _ = text.partition("(")
    try:
        return bool(bracket) and _is_word(head) and str(parse(text)) == text
    except UsageError:
        return False
