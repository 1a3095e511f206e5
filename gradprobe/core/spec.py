"""``name(option=value, ...)``: parsing what users write, and the one canonical way to write it back.

A value may be of that form itself, as in ``es(noise=low-rank(rank=4))``: it is the canonical string of what it says.
So may the first thing in the brackets, which then has no name: ``sign(lr(sigma=0.1), copies=100)``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from gradprobe.core.errors import UsageError


@dataclass(frozen=True)
class Spec:
    """A registered name and the options given to it.

    Attributes:
        name: The name.
        options: Value of each option.
        argument: What stands before the options without a name: ``lr`` in ``sign(lr, copies=100)``; "" if nothing.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    argument: str = ""

    def __str__(self) -> str:
        return label(self.name, self.options, self.argument)


def parse(text: str) -> Spec:
    """Parse ``"lr(noise=rademacher, sigma=0.1)"``.

    Args:
        text: A name, optionally followed by options in brackets. Values are Python literals; a bare word is
            a string, and so is a word with options of its own, ``low-rank(rank=4)``, which is put in canonical
            form. One such word may stand first without a name.

    Returns:
        Name, options and argument.

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
        return _spec(name.strip(), call)
    except (ValueError, RecursionError):
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


def label(name: str, options: Mapping[str, Any], argument: str = "") -> str:
    """Canonical string of a name and options: keys sorted, numbers and words written one way only."""
    first = [_text(argument)] if argument else []
    inner = ", ".join([*first, *(f"{key}={_text(options[key])}" for key in sorted(options))])
    return f"{name}({inner})" if inner else name


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no free choice of spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _spec(name: str, call: ast.Call) -> Spec:
    """What a call says.

    Raises:
        ValueError: It is not of the form ``name(word, option=value)``.
    """
    keys = [k.arg for k in call.keywords]
    if None in keys or len(set(keys)) < len(keys) or len(call.args) > 1:
        raise ValueError("options are name=value, each of them once")
    first = [_value(node) for node in call.args]
    if not all(isinstance(value, str) and value for value in first):
        raise ValueError("only a word can stand without a name")
    return Spec(name, {str(k.arg): _value(k.value) for k in call.keywords}, "".join(first))


def _value(node: ast.expr) -> Any:
    word = _word(node)
    if word is None:
        return ast.literal_eval(node)
    return word if isinstance(word, str) else str(_spec(*word))


def _word(node: ast.expr) -> str | tuple[str, ast.Call] | None:
    """A word, which may have hyphens; with its call where it has options; None if it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        name = _word(node.func)
        return (name, node) if isinstance(name, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        left, right = _word(node.left), _word(node.right)
        if isinstance(left, str) and right is not None:
            return f"{left}-{right}" if isinstance(right, str) else (f"{left}-{right[0]}", right[1])
    return None


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
    """Whether a text can be written without quotes."""
    return text.replace("-", "_").isidentifier() and not iskeyword(text)


@functools.lru_cache(maxsize=1024)  # of words within words each would be read again for every one around it
def _is_canonical(text: str) -> bool:
    """Whether a text is a word with options, as they are written here."""
    name, bracket, _ = text.partition("(")
    if not bracket or not _is_word(name):
        return False
    try:
        return str(parse(text)) == text
    except UsageError:
        return False
