"""Rows: what the page of a job shows of the rows to which its arguments refer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..models.notation import Reference, references

ShownColumns: TypeAlias = Mapping[str, Any] | None
RowHook: TypeAlias = Callable[[str, Any], ShownColumns | Awaitable[ShownColumns]]
"""Takes the name of a model and a key, and returns the columns to show, or an awaitable of them."""

MOST = 10
"""The most rows of a job whose columns are shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row to which arguments refer."""

    name: str
    """Its model and its key."""
    columns: Mapping[str, Any]
    failure: str = ""
    """The class of the exception that the hook has raised."""


async def rows_of(args: Any, hook: RowHook | None, seconds: float) -> list[Row]:
    """The rows to which arguments refer, the first ones with the columns that the hook returns.

    A call of the hook is cancelled after `seconds`.
    """
    found = [*references(args)]
    shown = [await _shown(reference, hook, seconds) for reference in found[:MOST]]
    return shown + [Row(_name(reference), {}) for reference in found[MOST:]]


async def _shown(reference: Reference, hook: RowHook | None, seconds: float) -> Row:
    name = _name(reference)
    if hook is None:
        return Row(name, {})
    try:
        async with asyncio.timeout(seconds):
            columns = hook(str(reference.get("$model")), reference.get("$key"))
            if inspect.isawaitable(columns):
                columns = await columns
        return Row(name, dict(columns or {}))
    except Exception as error:
        # An error of the hook must not break the page of the job. Its message may hold data of the
        # row.
        return Row(name, {}, type(error).__name__)


def _name(reference: Reference) -> str:
    key = reference.get("$key")
    if isinstance(key, dict):
        key = ", ".join(f"{name}={value}" for name, value in key.items())
    return f"{reference.get('$model')} {key}"
