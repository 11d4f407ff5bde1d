"""`Reading`: read the sources one by one, and collect the settings and all mistakes."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import import_path
from ..address import parse_address
from ..config import Config
from ..dsn import connect_arguments, database_url
from ..errors import ConfigError
from .known import (
    ARGUMENTS,
    DATABASES,
    DEFAULT,
    DEFAULTS,
    FILE,
    FORMATS,
    KINDS,
    LEVELS,
    PREFIX,
    PROJECT,
    TABLE,
    close_name,
    suggestion,
)
from .settings import Setting, Settings
from .sources import read_environment, read_toml
from .values import parse_variable, plain


@dataclass(slots=True)
class Reading:
    """The settings that were read so far. The first source of a setting wins."""

    found: dict[str, Setting] = field(default_factory=dict)
    complaints: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    located: bool = False
    """Whether an earlier source has named the database."""

    def begin_source(self) -> None:
        """Begin the next source. It does not override earlier sources."""
        self.located = any(name in self.found for name in DATABASES)

    def take(self, values: Mapping[str, Any], source: str) -> None:
        for name, value in values.items():
            if name in DATABASES and self.located:
                continue
            if name in DEFAULTS:
                self.found.setdefault(name, Setting(name, plain(name, value), source))
            else:
                # The value is not shown, since the name may be a misspelt `dsn`.
                complaint = f"there is no setting {name!r}{suggestion(name)}"
                self.complaints.append((name, f"{source}: {complaint}"))

    def take_file(self, path: str | os.PathLike[str] | None) -> None:
        if path is not None:
            self._take_toml(Path(path))
            return
        own, project = Path.cwd() / FILE, Path.cwd() / PROJECT
        if not own.is_file():
            if project.is_file():
                self._take_toml(project)
            return
        self._take_toml(own)
        if project.is_file() and Reading()._read(project):
            self.notes.append(f"settings come from {own}; {TABLE} in {project} is ignored")

    def take_environment(self) -> None:
        for name, value in read_environment(PREFIX, KINDS).items():
            if name in self.found:
                continue
            variable = f"{PREFIX}{name.upper()}"
            try:
                self.take({name: parse_variable(name, value)}, variable)
            except ValueError as error:
                self.complaints.append((name, f"{variable}: {error}"))
        for variable in os.environ:
            name = variable.removeprefix(PREFIX).lower()
            # Only a note: other programs, such as Oban for Python, use variables of this prefix.
            if variable.startswith(PREFIX) and name not in DEFAULTS and (close := close_name(name)):
                self.notes.append(
                    f"{variable} is not a setting; did you mean {PREFIX}{close.upper()}?"
                )

    def settings(self) -> Settings:
        given = {name: setting.value for name, setting in self.found.items()}
        try:
            config = Config.check(**{name: given[name] for name in ARGUMENTS if name in given})
        except ConfigError as error:
            for name, complaint in error.complaints:
                self._complain(name, complaint)
        for name, complaint in _wrong(given):
            self._complain(name, complaint)
        if self.complaints:
            raise ConfigError(self.complaints)
        found = {
            name: self.found.get(name, Setting(name, default, DEFAULT))
            for name, default in DEFAULTS.items()
        }
        return Settings(config, found, tuple(self.notes))

    def _take_toml(self, path: Path) -> None:
        values = self._read(path)
        source = f"{path} {TABLE}" if path.name == PROJECT else str(path)
        if isinstance(values, Mapping):
            self.take(values, source)
        elif values is not None:
            self.complaints.append(("", f"{source} must be a table, not {values!r}"))

    def _read(self, path: Path) -> Any:
        try:
            values = read_toml(path)
        except (OSError, ValueError) as error:  # a ValueError names the line
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            self.complaints.append(("", f"{path}: {why}"))
            return None
        if path.name != PROJECT:
            return values
        tools = values.get("tool")
        return tools.get("oban") if isinstance(tools, Mapping) else None

    def _complain(self, name: str, complaint: str) -> None:
        source = self.found[name].source
        key = "" if source.startswith(PREFIX) or complaint.startswith(name) else f"{name}: "
        self.complaints.append((name, f"{source}: {key}{complaint}"))


def _wrong(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The mistakes in the settings that are not arguments of `Oban`."""
    for name in ("engine", "session"):
        if given.get(name) is not None and not import_path.is_import_path(given[name]):
            yield name, f"{name} must be an import path like 'shop:engine', not {given[name]!r}"
    if all(given.get(name) is not None for name in DATABASES):
        yield "engine", "the database is named twice: set dsn or engine, not both"
    if given.get("dsn") is None and given.get("engine") and given.get("pool_size") is not None:
        yield "pool_size", "the engine has a pool of its own: leave pool_size out, or set dsn"
    if given.get("dsn") is not None:
        try:
            connect_arguments(database_url(given["dsn"]))
        except ValueError as error:
            yield "dsn", str(error)
    imports = given.get("imports", [])
    if not isinstance(imports, list | tuple) or not all(map(_is_module, imports)):
        yield "imports", f"imports must be a list of modules, like ['app.workers'], not {imports!r}"
    if given.get("metrics") is not None:
        try:
            parse_address(str(given["metrics"]))
        except ValueError as error:
            yield "metrics", f"metrics must be an address to listen at: {error}"
    if not isinstance(given.get("tracing", False), bool):
        yield "tracing", f"tracing must be true or false, not {given['tracing']!r}"
    for name, allowed in (("log_level", LEVELS), ("log_format", FORMATS)):
        if name in given and given[name] not in allowed:
            yield name, f"{name} must be one of {', '.join(allowed)}, not {given[name]!r}"


def _is_module(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
