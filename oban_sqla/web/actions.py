"""Actions on jobs: ask for a confirmation with the number of jobs, and change them in batches."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..models import Job, JobState
from ..models.job_id import LARGEST_ID
from ..monitor.browse import Selection, Tally
from ..oban import Oban
from .carry_out import carry_out
from .errors import groups_of
from .job import WAITING
from .job_verbs import JOB_VERBS, JobVerb
from .jobs import search_of
from .page import Page
from .search import Search, SearchError

MOST = 100_000
"""The most jobs that one action changes, the oldest first."""
MOST_IDS = 5000

_CHANGES: dict[str, Callable[[Oban, Select[Any], AsyncSession], Awaitable[int]]] = {
    "retry": lambda oban, jobs, session: oban.retry_jobs(jobs, conn=session),
    "cancel": lambda oban, jobs, session: oban.cancel_jobs(jobs, conn=session),
    "delete": lambda oban, jobs, session: oban.delete_jobs(jobs, conn=session),
}


async def confirm(request: Request) -> Response:
    """Ask for a confirmation to change the selected jobs, with their number."""
    page = Page(request)
    verb, search = page.chosen(JOB_VERBS), await _asked(page)
    tally = await _selection(verb, search).tally(page.board.reads)
    return await page.render(
        "confirm.html",
        active="jobs",
        title=f"{verb.name.capitalize()} jobs",
        verb=verb,
        search=search,
        tally=tally,
        most=MOST,
        back=_back(page),
    )


async def change(request: Request) -> Response:
    """Change the confirmed jobs that still match the selection."""
    page = Page(request)
    verb, search = page.chosen(JOB_VERBS), await _asked(page)
    last, total = _number(page, "last"), _number(page, "total")
    selection = _selection(verb, search)
    parts = _parts(page, verb, selection, Tally({verb.name: total}, last))
    changed = await carry_out(page, verb, "job", parts, lambda _: _target(search))
    back = _back(page)
    return page.redirect(back or "jobs", **_params(page, back), done=verb.name, n=changed)


async def edit(request: Request) -> Response:
    """Change the priority, the time and the tags of a waiting job."""
    page = Page(request)
    page.require("edit")
    id = page.id
    waiting = select(Job).where(Job.id == id, Job.state.in_([JobState(one) for one in WAITING]))
    try:
        changes = _edited(page)
        async with page.board.session() as session:
            changed = await page.board.oban.update_jobs(waiting, changes, conn=session)
    except (ValueError, TypeError) as error:
        raise HTTPException(400, str(error)) from None
    except DataError:
        raise HTTPException(400, "A column of the job can't be read. Correct the row.") from None
    if not changed:
        raise HTTPException(409, f"Job {id} does not wait any more, so it was not changed.")
    page.report("edit_job", f"job {id}", 1)
    return page.redirect(f"jobs/{id}", done="edit")


def _edited(page: Page) -> dict[str, Any]:
    """The changes in the form. The worker and the arguments can't be changed."""
    form = page.form
    changes: dict[str, Any] = {}
    if priority := form.get("priority"):
        changes["priority"] = int(priority)
    if (at := form.get("scheduled_at")) and at != form.get("scheduled_was"):
        changes["scheduled_at"] = datetime.fromisoformat(at)
    changes["tags"] = [tag for part in form.get("tags").split(",") if (tag := part.strip())]
    return changes


async def _parts(
    page: Page, verb: JobVerb, selection: Selection, tally: Tally
) -> AsyncGenerator[int, None]:
    async for _, batch in selection.batches(page.board.reads, tally):
        async with page.board.session() as session:
            changed = await _CHANGES[verb.name](page.board.oban, batch, session)
        yield changed


async def _asked(page: Page) -> Search:
    """The jobs that a form selects: by ids, by a group of errors, or by a search."""
    form = page.form
    if key := form.get("group"):
        groups = {group.key: group for group in await groups_of(page)}
        ids = groups[key].ids if key in groups else []
        return _by_ids(ids)
    if form.get("scope") == "search":
        try:
            return search_of(page, form.get("q"), form.get("state"), form.get("queue"))
        except SearchError as error:
            raise HTTPException(400, str(error)) from None
    given = [one for text in form.all("id") for one in text.split(",")]
    if not all(one.isascii() and one.isdigit() and len(one) < 20 for one in given):
        raise HTTPException(400, "An id is a number.")
    return _by_ids([int(one) for one in given])


def _by_ids(ids: list[int]) -> Search:
    known = tuple(sorted({id for id in ids if 0 < id <= LARGEST_ID}))
    if not known:
        raise HTTPException(400, "No job is selected. Tick some, or choose all found jobs.")
    if len(known) > MOST_IDS:
        raise HTTPException(400, f"A selection has up to {MOST_IDS:,} jobs; use a search.")
    return Search(ids=known)


def _selection(verb: JobVerb, search: Search) -> Selection:
    chosen = bool(search.ids or search.state)
    return Selection(search.filters(), verb.states if chosen else verb.default, limit=MOST)


def _back(page: Page) -> str:
    """The page to which to return: that of a job, the errors, or by default the list."""
    back = page.form.get("back")
    kind, _, id = back.partition("/")
    if back == "errors" or (kind == "jobs" and id.isascii() and id.isdigit() and len(id) < 20):
        return back
    return ""


def _params(page: Page, back: str) -> dict[str, str]:
    """The search that the list shows again."""
    return {} if back else {name: page.form.get(name) for name in ("state", "queue", "q")}


def _number(page: Page, name: str) -> int:
    text = page.form.get(name)
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise HTTPException(400, f"{name} is a number.")
    return min(int(text), LARGEST_ID)


def _target(search: Search) -> str:
    if search.ids:
        few = ", ".join(map(str, search.ids[:10]))
        return f"jobs {few}{' and others' if len(search.ids) > 10 else ''}"
    words = [
        f"state:{search.state.value}" if search.state else "",
        f"queue:{search.queue}" if search.queue else "",
        search.text,
    ]
    return " ".join(word for word in words if word) or "all jobs"
