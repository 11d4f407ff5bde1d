"""How arguments are stored: a reference to a row never collides with the user's JSON.

In the table, `{"$model": "shop.models.Order", "$key": {"id": 7}}` is a reference. The keys `$model`
and `$key` in the user's JSON are stored with one more `$`, as `$$model` and `$$key`.
In Python, a reference has the type `Reference`, and any other dict is the user's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .validation import DEEPEST

MODEL = "$model"
KEY = "$key"

_OURS = re.compile(r"\$+(?:model|key)")
_CONTAINERS = (dict, list)


class Reference(dict[str, Any]):
    """A reference to a row."""

    __slots__ = ()

    @property
    def is_unknown(self) -> bool:
        """Whether the reference has no key and will not get one."""
        return False


def to_table(args: Any) -> Any:
    """Arguments in the notation of the table."""
    # The arguments as a whole are never a reference; only values in them are.
    return _written({**args} if isinstance(args, Reference) else args)


def from_table(args: Any) -> Any:
    """Arguments from the notation of the table."""
    if isinstance(args, dict):
        return {_user_key(key): _read(value, 1) for key, value in args.items()}
    return _read(args, 1)


def may_hold_our_keys(text: str) -> bool:
    """Whether encoded JSON may have keys of the notation. Otherwise both notations are the same."""
    return '$model"' in text or '$key"' in text


def references(args: Any, depth: int = 0) -> Iterator[Reference]:
    """The references among arguments."""
    if depth >= DEEPEST:
        # `from_table` reads no reference there.
        return
    if isinstance(args, dict):
        args = args.values()
    elif not isinstance(args, list):
        return
    for item in args:
        if not isinstance(item, _CONTAINERS):
            continue
        if isinstance(item, Reference):
            yield item
        else:
            yield from references(item, depth + 1)


def _written(value: Any) -> Any:
    if isinstance(value, Reference):
        return value
    if isinstance(value, dict):
        return {_table_key(key): _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return value


def _read(value: Any, depth: int) -> Any:
    # This library never stores deeper arguments, and reading them could exhaust the stack.
    if depth >= DEEPEST:
        return value
    if isinstance(value, dict):
        if len(value) == 2 and MODEL in value and KEY in value:
            return Reference(value)
        return {_user_key(key): _read(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item, depth + 1) for item in value]
    return value


def _table_key(key: str) -> str:
    return f"${key}" if key[:1] == "$" and _OURS.fullmatch(key) else key


def _user_key(key: str) -> str:
    return key[1:] if key[:2] == "$$" and _OURS.fullmatch(key) else key
