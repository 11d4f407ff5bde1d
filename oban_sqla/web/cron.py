"""The page of cron: the entries, their ticks, and a button that runs an entry now."""

from datetime import datetime
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .page import Page


async def cron(request: Request) -> Response:
    page = Page(request)
    return await page.render(
        "cron.html",
        active="cron",
        title="Cron",
        entries=await page.shared("entries", page.board.entries),
        local=local,
    )


def local(tick: datetime | None, zone: str) -> str:
    """A tick in the local time of its zone."""
    try:
        return "" if tick is None else f"{tick.astimezone(ZoneInfo(zone)):%a %d %b %H:%M %Z}"
    except OverflowError:
        return ""  # Another program may have stored the first or the last day that Python knows.


async def run_entry(request: Request) -> Response:
    """Enqueue the job of an entry now."""
    page = Page(request)
    page.require("retry")
    worker = page.form.get("worker")
    job = await page.board.run_entry(worker)
    if job is None:
        raise HTTPException(404, f"This process knows no cron entry of a worker {worker!r}.")
    page.report("run_cron", worker, 1)
    return page.redirect(f"jobs/{job.id}")
