"""Carry out an action on many jobs or workflows in parts, each in a transaction of its own."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.exceptions import HTTPException

from .job_verbs import Verb
from .outage import OUTAGES
from .page import Page

# Seconds after which an action stops. The page says how many jobs or workflows were changed.
LONGEST = 25.0


async def carry_out(
    page: Page,
    verb: Verb,
    noun: str,
    parts: AsyncGenerator[int, None],
    target: Callable[[int], str],
) -> int:
    """Carry out parts until none is left, or for `LONGEST` seconds; returns how many rows changed.

    parts: yields the number of rows that each committed part has changed.
    target: what the event reports, for the number of changed rows.

    Raises an `HTTPException` with the number if the database fails after the first part.
    """
    changed, until = 0, time.monotonic() + LONGEST
    try:
        async with aclosing(parts):
            async for count in parts:
                changed += count
                if time.monotonic() > until:
                    break
    except OUTAGES as error:
        if not changed:
            raise
        nouns = f"{noun} was" if changed == 1 else f"{noun}s were"
        said = f"{changed:,} {nouns} {verb.done}, and then the database failed."
        raise HTTPException(503, f"{said} Repeat it for the other {noun}s.") from error
    finally:
        # Reported even if the database failed half way.
        if changed:
            page.report(f"{verb.name}_{noun}s", target(changed), changed)
    return changed
