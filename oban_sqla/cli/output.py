"""Print the results of commands: one JSON document, or tables, which a pipe does not truncate."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

Columns = Mapping[str, JustifyMethod]
"""The names of columns, and the justification of each: "left" or "right"."""

# The width of output in a pipe, where nothing must be cut.
ENDLESS = 10_000


def console() -> Console:
    """A console on standard output, as wide as the terminal, or endless in a pipe."""
    own = Console(highlight=False)
    return own if own.is_terminal else Console(highlight=False, width=ENDLESS)


def table(columns: Columns, rows: Iterable[Sequence[object]]) -> None:
    """Print rows below the names of their columns."""
    console().print(grid(columns, rows))


def grid(columns: Columns, rows: Iterable[Sequence[object]]) -> Table:
    """A table of rows below the names of their columns.

    If the terminal is too narrow, the last column is wrapped.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, (name, justify) in enumerate(columns.items(), 1):
        last = number == len(columns)
        made.add_column(
            name,
            justify=justify,
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        # `Text`, because rich would interpret markup in strings, which users may have written.
        made.add_row(*(Text(plain(cell)) for cell in row))
    return made


def plain(value: object) -> str:
    """A value as text, with control characters escaped."""
    text = "" if value is None else str(value)
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def cut(text: str, longest: int) -> str:
    """A text, cut at the end if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def document(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(as_json(value, indent=2))


def as_json(value: object, indent: int | None = None) -> str:
    """A value as JSON: dataclasses as objects, instants as ISO 8601."""
    return json.dumps(value, default=_simple, indent=indent)


def _simple(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
