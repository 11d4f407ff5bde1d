"""The list of jobs: by state and search, in pages from the newest to the oldest."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response

from ..models import Job
from ..monitor.browse import Listed, browse
from ..monitor.status import Count
from .board import EXACT
from .job_states import EMPTY
from .page import Page, counts_of
from .reads import Reads
from .search import WORDS, Search, SearchError, nested, parse

ROWS = 50
SCANNED = 50_000
"""The most ids that a search without an index reads for a page."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of jobs."""

    jobs: list[Listed]
    before: int | None = None
    """Where the next page starts: ids below this; `None` if there is none."""
    searched_until: int | None = None
    """The id at which the search has stopped, if it has not read all jobs."""


async def jobs(request: Request) -> Response:
    page = Page(request)
    status = await page.board.status()
    listing, complaint = Listing([]), None
    try:
        search = search_of(page, page.asked("q"), page.asked("state"), page.asked("queue"))
        counts = counts_of(status, search.queue)
        before = _before(page.asked("before"))
        few = search.state is not None and _count(counts, search) <= EXACT
        reads = page.board.reads
        listing = await page.shared("jobs", partial(_list, reads, search, few, before))
    except SearchError as error:
        search, complaint = Search(text=page.asked("q")[:1000]), str(error)
        counts = counts_of(status)
    return await page.render(
        "jobs.html",
        400 if complaint else 200,
        active="jobs",
        title="Jobs",
        search=search,
        complaint=complaint,
        counts=counts,
        total=_sum(counts),
        listing=listing,
        empty=EMPTY[search.state],
        words=WORDS,
        queue_names=[queue.queue for queue in status.queues],
        before=page.asked("before"),
    )


def search_of(page: Page, text: str, state: str, queue: str) -> Search:
    """The requested search; `SearchError` if the viewer lacks the right for it."""
    search = parse(text, state=state, queue=queue)
    if search.is_private and not page.may("args"):
        raise SearchError("to search arguments and errors takes the right args")
    if page.board.mask is not None:
        _refuse_masked(page, search)
    try:
        search.filters()
    except (ValueError, TypeError) as error:
        raise SearchError(str(error)) from None
    return search


def _refuse_masked(page: Page, search: Search) -> None:
    """Refuse a search that would reveal values which a mask covers."""
    if search.errors:
        # A search for a part of a covered text would find it, and the mask can't tell which search
        # is safe.
        raise SearchError("errors may be masked, and can't be searched")
    workers = search.workers or ("",)
    for path, value in search.args:
        asked = nested(path, value)
        if any(page.shown("args", asked, worker) != asked for worker in workers):
            raise SearchError(f"args.{'.'.join(path)} is masked, and can't be searched")


async def _list(reads: Reads, search: Search, few: bool, before: int | None) -> Listing:
    """A page of jobs, with ids below `before`. few: whether its state has few jobs."""
    if not search.scans or few:
        found = await browse(reads, search.filters(before=before), limit=ROWS + 1, cut=True)
        return _page(found)
    await reads.verify()
    ((lowest, highest),) = await reads.fetch(select(func.min(Job.id), func.max(Job.id)))
    if highest is None:
        return Listing([])
    top = min(before, highest + 1) if before else highest + 1
    first = max(1, top - SCANNED)
    found = await browse(reads, search.filters(before=top, first=first), limit=ROWS + 1, cut=True)
    if len(found) > ROWS or first <= lowest:
        return _page(found)
    return Listing(found, before=first, searched_until=first)


def _page(found: list[Listed]) -> Listing:
    more = len(found) > ROWS
    return Listing(found[:ROWS], found[ROWS - 1].id if more else None)


def _count(counts: dict[str, Count], search: Search) -> int:
    found = counts.get(search.state.value) if search.state else None
    return found.count if found else 0


def _sum(counts: dict[str, Count]) -> Count:
    return Count(
        sum(count.count for count in counts.values()),
        any(count.estimated for count in counts.values()),
    )


def _before(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
