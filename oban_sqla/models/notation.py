"""How the table writes arguments: a reference to a row is JSON, and no JSON of a user is one.

In the table `{"$model": "shop.models.Order", "$key": {"id": 7}}` is a reference. A key `$model` or
`$key` in a user's JSON is written with one more `$`, as `$$model` or `$$key`, and read without it.
In Python a reference has a type of its own, `Reference`, so a dict is always JSON of a user.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .validation import DEEPEST

MODEL = "$model"
KEY = "$key"

_OURS = re.compile(r"\$+(?:model|key)")


class Reference(dict[str, Any]):
    """A reference to a row."""

    __slots__ = ()

    @property
    def is_unknown(self) -> bool:
        """Whether it has no key, and nothing is going to give it one."""
        return False


def to_table(args: Any) -> Any:
    """Arguments as the table writes them."""
    # All of them together are never a reference, only what is in them.
    return _written({**args} if isinstance(args, Reference) else args)


def from_table(args: Any) -> Any:
    """The arguments that the table writes so."""
    if isinstance(args, dict):
        return {_user_key(key): _read(value, 1) for key, value in args.items()}
    return _read(args, 1)


def may_hold_our_keys(text: str) -> bool:
    """Whether encoded JSON may have keys of the notation: without any, it is as the table's."""
    return '$model"' in text or '$key"' in text


def references(args: Any) -> Iterator[Reference]:
    """The references among arguments."""
    if isinstance(args, dict):
        args = args.values()
    elif not isinstance(args, list):
        return
    for item in args:
        if isinstance(item, Reference):
            yield item
        elif isinstance(item, dict | list):
            yield from references(item)


def _written(value: Any) -> Any:
    if isinstance(value, Reference):
        return value
    if isinstance(value, dict):
        return {_table_key(key): _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return value


def _read(value: Any, depth: int) -> Any:
    # Arguments made by this library are never deeper, and deeper ones could exhaust the stack.
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
