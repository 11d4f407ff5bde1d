"""The options that select jobs, for the commands that list jobs or change them."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from ..clock import LONGEST_INTERVAL
from ..models import JobState
from ..models.job_id import LARGEST_ID
from ..monitor.job_queries import Filters
from ..monitor.worker_names import find_worker
from ..runtime.database import Database
from .failures import warn

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Parse a text like `30s`, `15m`, `2h` or `7d` to seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    length = float(found[1]) * UNITS[found[2]] if found else LONGEST_INTERVAL
    if length >= LONGEST_INTERVAL:
        raise typer.BadParameter(f"{text!r} is not a duration like 30s, 15m, 2h or 7d")
    return length


def parse_object(text: str) -> Mapping[str, Any]:
    """Parse a text to a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is not a JSON object, like '{{\"id\": 7}}'")
    return value


Ids = Annotated[
    list[int] | None,
    typer.Argument(
        metavar="ID", min=1, max=LARGEST_ID, show_default=False, help="The ids of jobs."
    ),
]
States = Annotated[
    list[JobState] | None,
    typer.Option(
        "--state", metavar="STATE", help="Jobs in this state, such as retryable; may be repeated."
    ),
]
Queue = Annotated[str | None, typer.Option(help="Jobs in this queue.")]
Worker = Annotated[
    str | None,
    typer.Option(help="Jobs of this worker: shop.SendMail, or SendMail if only one matches."),
]
Args = Annotated[
    Any,
    typer.Option(
        "--args",
        parser=parse_object,
        metavar="JSON",
        help="Jobs with these arguments: '{\"id\": 7}'.",
    ),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="Jobs with this tag; may be repeated.")
]
OlderThan = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Jobs enqueued longer ago than 30s, 15m, 2h, 7d.",
    ),
]
NewerThan = Annotated[
    float | None,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Jobs enqueued less than 30s, 15m, 2h, 7d ago.",
    ),
]


async def with_full_name(database: Database, filters: Filters) -> Filters:
    """The filters, with the full name of the worker whose name ends with the given name.

    If no job has the name, it stays unchanged, and a similar name is printed to stderr.
    `ValueError` if the names of several workers end with it.
    """
    if filters.worker is None:
        return filters
    await database.verify()
    found = await find_worker(database, filters.worker)
    if found.name is None:
        hint = f"; did you mean {found.close!r}?" if found.close else ""
        warn(f"no job has a worker {filters.worker!r}{hint}")
        return filters
    return replace(filters, worker=found.name)
