"""Read settings from code, the environment and a file; report their sources and all mistakes."""

import os
from typing import Any

from .known import CODE, DATABASES, DEFAULT, DEFAULTS, PREFIX, SECRET
from .reading import Reading
from .settings import Settings
from .values import parse_queues

__all__ = [
    "DATABASES",
    "DEFAULT",
    "DEFAULTS",
    "PREFIX",
    "SECRET",
    "Settings",
    "load",
    "parse_queues",
]


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

    `ConfigError` that lists every mistake of every source.
    """
    reading = Reading()
    reading.take(given, origin)
    reading.begin_source()
    reading.take_environment()
    reading.begin_source()
    reading.take_file(path)
    return reading.settings()
