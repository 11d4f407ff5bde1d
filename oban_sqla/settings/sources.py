"""Read TOML files and environment variables."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

_WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; `OSError`, or a `ValueError` that names the line."""
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    with path.open("rb") as file:
        return tomllib.load(file)


def read_environment(prefix: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the names in `kinds`, in capitals or not; empty ones are left out.

    A variable is text. If its kind is no scalar, the text is read as JSON.
    """
    variables = {name.upper(): text for name, text in os.environ.items() if text}
    found = {name: variables.get(f"{prefix}{name}".upper()) for name in kinds}
    return {
        name: text if _is_scalar(kinds[name]) else _from_json(text)
        for name, text in found.items()
        if text is not None
    }


def convert(kind: Any, text: str) -> Any:
    """Convert a text to a kind. A text that does not fit is returned unchanged."""
    kinds = _members(kind)
    if bool in kinds:
        return _WORDS.get(text.lower(), text)
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                pass
    return text


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_scalar(kind: Any) -> bool:
    origins = {get_origin(one) or one for one in _members(kind)}
    return not any(isinstance(one, type) and issubclass(one, Mapping | list) for one in origins)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
