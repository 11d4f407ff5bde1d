"""Settings from code, the environment and a file: where each comes from, and every mistake."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from .. import import_path
from ..address import Address, parse_address
from ..config import Config
from ..config.oban_settings import RULES, ObanSettings
from ..dsn import connect_arguments, database_url
from ..errors import ConfigError
from .sources import convert, read_environment, read_toml

FILE = "oban.toml"
PROJECT = "pyproject.toml"
TABLE = "[tool.oban]"
PREFIX = "OBAN_"
CODE = "given in code"
DEFAULT = "default"

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

HIDDEN = "(hidden)"
# They hold passwords.
SECRET = ("dsn", "listen_dsn")
# Each names the database: the source that counts most decides which one does.
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
"""What the text of a variable is read as."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, and where it comes from: a file, a variable, code, or the default."""

    name: str
    value: Any
    source: str

    def __repr__(self) -> str:
        return f"Setting({self.name!r}, {self.shown!r}, {self.source!r})"

    @property
    def shown(self) -> Any:
        """The value, but for one that may hold a password."""
        return HIDDEN if self.name in SECRET and self.value is not None else self.value


@dataclass(frozen=True, slots=True)
class Settings:
    """What was found, and checked."""

    config: Config
    found: Mapping[str, Setting]
    """Every setting by its name, those that have their defaults, too."""
    notes: tuple[str, ...]
    """What is not wrong, but may not be meant."""

    @property
    def dsn(self) -> str | None:
        """The setting `dsn`."""
        dsn: str | None = self.found["dsn"].value
        return dsn

    @property
    def names_database(self) -> bool:
        """Whether `dsn`, `engine` or `session` says which database to use."""
        return any(self.found[name].value is not None for name in (*DATABASES, "session"))

    def database(
        self, dsn: str | None = None
    ) -> AsyncEngine | async_sessionmaker[Any] | str | None:
        """The database, as `Oban` takes it; `None` if no setting names one.

        The modules of the settings `engine` and `session` are imported here.

        dsn: use this database instead of the one that the settings name.

        `ConfigError` if an import fails, or finds an object of another kind.
        """
        database = dsn or self.dsn
        if database is None and self.found["engine"].value is not None:
            database = self._imported("engine", AsyncEngine, async_sessionmaker)
        if self.found["session"].value is None:
            return database
        session: async_sessionmaker[Any] = self._imported("session", async_sessionmaker)
        if database is None:
            return session
        engine = database.kw.get("bind") if isinstance(database, async_sessionmaker) else database
        return async_sessionmaker(class_=session.class_, **{**session.kw, "bind": engine})

    def _imported(self, name: str, *kinds: type) -> Any:
        setting = self.found[name]
        try:
            found = import_path.load(setting.value)
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            complaint = f"{setting.source}: {name}: can't import {setting.value!r}: {kind}{error}"
            raise ConfigError([(name, complaint)]) from error
        if not isinstance(found, kinds):
            wanted = " or an ".join(kind.__name__ for kind in kinds)
            complaint = (
                f"{setting.source}: {name}: {setting.value!r} must be an {wanted}, not"
                f" {type(found).__name__}"
            )
            raise ConfigError([(name, complaint)])
        return found

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules with workers."""
        return tuple(self.found["imports"].value)

    @property
    def log_level(self) -> str:
        """One of `LEVELS`."""
        return str(self.found["log_level"].value)

    @property
    def log_format(self) -> str:
        """One of `FORMATS`."""
        return str(self.found["log_format"].value)

    @property
    def metrics(self) -> Address | None:
        """Where `oban-sqla start` serves metrics; `None` for nowhere."""
        address = self.found["metrics"].value
        return None if address is None else parse_address(str(address))

    @property
    def tracing(self) -> bool:
        """Whether `oban-sqla start` traces its jobs."""
        return bool(self.found["tracing"].value)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `Oban` is to be given, besides the database."""
        return {
            name: setting.value
            for name, setting in self.found.items()
            if name in ARGUMENTS and setting.source != DEFAULT
        }


def load(
    path: str | os.PathLike[str] | None = None, *, origin: str = CODE, **given: Any
) -> Settings:
    """Read the settings: the given ones, then `OBAN_*` variables, then a file.

    The file is `oban.toml`, or `[tool.oban]` in `pyproject.toml`, in the working directory, or the
    file at `path`. The first source that has a setting decides its whole value. Besides the
    arguments of `Oban` there are `dsn`, `engine` and `session` (import paths), `imports` (modules
    with workers), `log_level` and `log_format`. TOML has no `None`: write `inf` in `retention` to
    keep jobs for ever. An empty variable is ignored.

    path: a TOML file, or a `pyproject.toml`.
    origin: the name of the source of the `given` settings, for messages.

    `ConfigError` that lists every mistake of every source; `ModuleNotFoundError` without the extra
    `config`.
    """
    reading = _Reading()
    reading.take(given, origin)
    reading.begin_source()
    reading.take_environment()
    reading.begin_source()
    reading.take_file(path)
    return reading.settings()


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
            raise ValueError(f"queue {name!r} is there twice")
        limits[name] = int(limit)
    return limits


@dataclass(slots=True)
class _Reading:
    """What was read so far: the first source of a setting wins."""

    found: dict[str, Setting] = field(default_factory=dict)
    complaints: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    located: bool = False
    """Whether a source that counts more has named the database."""

    def begin_source(self) -> None:
        """Read the next source, which counts less than the ones before."""
        self.located = any(name in self.found for name in DATABASES)

    def take(self, values: Mapping[str, Any], source: str) -> None:
        for name, value in values.items():
            if name in DATABASES and self.located:
                continue
            if name in DEFAULTS:
                self.found.setdefault(name, Setting(name, _plain(name, value), source))
            else:
                # Its value is not shown: it may be a misspelt `dsn`.
                complaint = f"there is no setting {name!r}{_suggestion(name)}"
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
        if project.is_file() and _Reading()._read(project):
            self.notes.append(f"{own} counts, {TABLE} in {project} does not")

    def take_environment(self) -> None:
        for name, value in read_environment(PREFIX, KINDS).items():
            if name in self.found:
                continue
            variable = f"{PREFIX}{name.upper()}"
            try:
                self.take({name: _parsed(name, value)}, variable)
            except ValueError as error:
                self.complaints.append((name, f"{variable}: {error}"))
        for variable in os.environ:
            name = variable.removeprefix(PREFIX).lower()
            # Not wrong: others use variables of that prefix, such as Oban for Python.
            if variable.startswith(PREFIX) and name not in DEFAULTS and (close := _close(name)):
                self.notes.append(f"{variable} is no setting; {PREFIX}{close.upper()} is one")

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
    """What is wrong with the settings that are no arguments of `Oban`."""
    for name in ("engine", "session"):
        if given.get(name) is not None and not import_path.is_one(given[name]):
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


def _parsed(name: str, value: Any) -> Any:
    """What a variable says; what it can't be is left to the rules, which say so in their words."""
    if not isinstance(value, str):
        return value
    if name == "queues":
        return parse_queues(value)
    if name == "imports":
        return [module.strip() for module in value.split(",")]
    return convert(KINDS[name], value)


def _plain(name: str, value: Any) -> Any:
    """A value in the form that it has in code."""
    if name == "retention":
        return _endless(value)
    return value.lower() if name.startswith("log_") and isinstance(value, str) else value


def _endless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _endless(own) for key, own in value.items()}
    return None if value == math.inf else value  # TOML has no word for None


def _close(name: str) -> str | None:
    return next(iter(get_close_matches(name, DEFAULTS, 1, 0.75)), None)


def _suggestion(name: str) -> str:
    close = _close(name)
    return f"; did you mean {close!r}?" if close else f"; there are {', '.join(DEFAULTS)}"
