"""Reading TOML files and environment variables, through pydantic-settings (extra `config`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says; `OSError` or `ValueError`, which names the line, if it can't."""
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    source = _pydantic_settings().TomlConfigSettingsSource
    values: dict[str, Any] = source(_model({}), path).toml_data
    return values


def read_environment(prefix: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that are there, by the names in `kinds`; empty ones are not.

    As the text that they are, or as what that is in JSON if the kind is no scalar.
    """
    source = _pydantic_settings().EnvSettingsSource
    values: dict[str, Any] = source(_model(kinds), env_prefix=prefix, env_ignore_empty=True)()
    return values


def convert(kind: Any, text: str) -> Any:
    """The text as a value of that kind; the text itself if it is none."""
    _pydantic_settings()
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return text


def _model(kinds: Mapping[str, Any]) -> Any:
    base = _pydantic_settings().BaseSettings
    from pydantic import create_model

    fields: dict[str, Any] = {name: (kind, None) for name, kind in kinds.items()}
    return create_model("Sources", __base__=base, **fields)


def _pydantic_settings() -> Any:
    try:
        import pydantic_settings
    except ModuleNotFoundError as error:
        if error.name not in ("pydantic_settings", "pydantic"):
            raise
        raise ModuleNotFoundError(
            "settings from files and variables need the extra: pip install 'oban-sqla[config]'"
        ) from None
    return pydantic_settings
