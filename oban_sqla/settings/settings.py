"""`Settings`: the checked settings, and the source of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from .. import import_path
from ..address import Address, parse_address
from ..config import Config
from ..errors import ConfigError
from .known import ARGUMENTS, DATABASES, DEFAULT, HIDDEN, SECRET


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
        """The value, or a placeholder if the value may contain a password."""
        return HIDDEN if self.name in SECRET and self.value is not None else self.value


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that were read and checked."""

    config: Config
    found: Mapping[str, Setting]
    """Every setting by its name, including defaults."""
    notes: tuple[str, ...]
    """Hints at possible mistakes, such as a misspelt variable."""

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
        """The address at which `oban-sqla start` serves metrics; `None` to serve none."""
        address = self.found["metrics"].value
        return None if address is None else parse_address(str(address))

    @property
    def tracing(self) -> bool:
        """Whether `oban-sqla start` traces its jobs."""
        return bool(self.found["tracing"].value)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for `Oban`, except the database."""
        return {
            name: setting.value
            for name, setting in self.found.items()
            if name in ARGUMENTS and setting.source != DEFAULT
        }
