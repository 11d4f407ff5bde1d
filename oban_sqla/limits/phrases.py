"""Phrases for the reasons why jobs wait: ids and instants in words, and JSON that others wrote."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from .circumstances import MOST_NAMED


def named(ids: Sequence[int]) -> str:
    named = ", ".join(map(str, ids[:MOST_NAMED]))
    more = len(ids) - MOST_NAMED
    return f"job{'s' if len(ids) > 1 else ''} {named}{f' and {more} more' if more > 0 else ''}"


def json_object(value: object) -> dict[str, Any]:
    """A JSON object, parsed if it is text; empty for anything else."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def after(job: Any, seconds: float) -> str:
    return at(job.now + timedelta(seconds=max(seconds, 0.0)), job.now)


def at(instant: datetime | None, now: datetime) -> str:
    if instant is None:
        return "an unknown time"
    instant, now = instant.replace(tzinfo=None), now.replace(tzinfo=None)
    form = "%H:%M:%S UTC" if instant.date() == now.date() else "%Y-%m-%d %H:%M:%S UTC"
    return instant.strftime(form)
