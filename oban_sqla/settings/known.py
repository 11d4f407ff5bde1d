"""The names, defaults and types of all settings."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_type_hints

from ..config.oban_settings import RULES, ObanSettings

FILE = "oban.toml"
PROJECT = "pyproject.toml"
TABLE = "[tool.oban]"
PREFIX = "OBAN_"
CODE = "given in code"
DEFAULT = "default"

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

HIDDEN = "(hidden)"
# Settings that may contain passwords.
SECRET = ("dsn", "listen_dsn")
# Settings that name the database. The first source that has one of them decides.
DATABASES = ("dsn", "engine")

ARGUMENTS: Mapping[str, Any] = {name: rule.default for name, rule in RULES.items()}
"""The settings that are arguments of `Oban`, with their defaults."""
DEFAULTS: Mapping[str, Any] = {
    "dsn": None,
    "engine": None,
    "session": None,
    **ARGUMENTS,
    "imports": [],
    "log_level": "info",
    "log_format": "text",
    "metrics": None,
    "tracing": False,
}
"""All settings, with their defaults."""
_HINTS = {
    **get_type_hints(ObanSettings),
    **dict.fromkeys(("dsn", "engine", "session"), str | None),
    "imports": list[str] | None,
    "tracing": bool,
}
KINDS: Mapping[str, Any] = {name: _HINTS.get(name, str) for name in DEFAULTS}
"""The types to which the text of a variable is converted."""


def close_name(name: str) -> str | None:
    """The name of the setting that an unknown name probably means."""
    return next(iter(get_close_matches(name, DEFAULTS, 1, 0.75)), None)


def suggestion(name: str) -> str:
    """The end of a message about an unknown setting."""
    close = close_name(name)
    return f"; did you mean {close!r}?" if close else f"; there are {', '.join(DEFAULTS)}"
