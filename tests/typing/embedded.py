"""Checked by mypy, not run: `embedded_postgres` gives a `str` in both kinds of block."""

from pathlib import Path
from typing import assert_type

from oban_sqla.embedded import embedded_postgres


async def blocks() -> None:
    async with embedded_postgres() as dsn:
        assert_type(dsn, str)
    with embedded_postgres(Path("data"), version=16, settings={"fsync": "off"}) as dsn:
        assert_type(dsn, str)
    embedded_postgres(version=15)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
