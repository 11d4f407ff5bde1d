"""Convert the values of settings from text to the form that they have in code."""

import json
import math
from collections.abc import Mapping
from typing import Any

from .known import KINDS
from .sources import convert


def parse_queues(text: str) -> dict[str, Any]:
    """Queues and their limits in one line, `default:10,mailers:20`, or in JSON.

    `ValueError` for another form.
    """
    if text.lstrip().startswith("{"):
        try:
            queues: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is not JSON: {error}") from None
        return queues
    limits: dict[str, Any] = {}
    for part in text.split(","):
        name, _, limit = (piece.strip() for piece in part.rpartition(":"))
        if not name or not limit.isdecimal() or int(limit) == 0:
            raise ValueError(f"{part!r} is not a queue with its limit, like default:10")
        if name in limits:
            raise ValueError(f"queue {name!r} is named twice")
        limits[name] = int(limit)
    return limits


def parse_variable(name: str, value: Any) -> Any:
    """The value of a variable. Invalid text is returned unchanged: `Config.check` reports it."""
    if not isinstance(value, str):
        return value
    if name == "queues":
        return parse_queues(value)
    if name == "imports":
        return [module.strip() for module in value.split(",")]
    return convert(KINDS[name], value)


def plain(name: str, value: Any) -> Any:
    """A value of a file or a variable in the form that code would pass."""
    if name == "retention":
        return _endless(value)
    return value.lower() if name.startswith("log_") and isinstance(value, str) else value


def _endless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _endless(own) for key, own in value.items()}
    return None if value == math.inf else value  # TOML has no None
