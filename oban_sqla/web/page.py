"""`Page`: a request for a page, with its access, and the ways to answer it."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from .. import __version__
from ..clock import client_now
from ..events import DashboardAction
from ..monitor.excerpts import Excerpt
from ..monitor.readable import UNREADABLE
from ..monitor.status import Count, Status
from .access import Access, Right
from .board import Board
from .form import Form
from .guard import FIELD
from .job_states import STATES
from .job_verbs import JOB_VERBS, Verb
from .live import mark_of
from .search import id_of
from .show import cut, environment, query, version_of

T = TypeVar("T")
V = TypeVar("V", bound=Verb)

MASKED = "(masked)"
# The most characters of a target in the log.
LONGEST_TARGET = 1500
HIDDEN = "(hidden: it takes the right args)"

NAVIGATION = (
    ("overview", "", "Overview"),
    ("jobs", "jobs", "Jobs"),
    ("queues", "queues", "Queues"),
    ("workflows", "workflows", "Workflows"),
    ("errors", "errors", "Errors"),
    ("cron", "cron", "Cron"),
)


class Page:
    """A page for a request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.board: Board = request.app.state.board
        self.access: Access = request.state.access

    def may(self, right: Right) -> bool:
        """Whether the viewer has a right."""
        return right in self.access.rights

    @property
    def manages(self) -> bool:
        """Whether the viewer may change jobs."""
        return not self.access.rights.isdisjoint(JOB_VERBS)

    def require(self, right: Right) -> None:
        """Refuse the request with status 403 if the viewer lacks a right."""
        if not self.may(right):
            raise HTTPException(403, f"This takes the right {right!r}, which you do not have.")

    @property
    def form(self) -> Form:
        """The sent form, whose token was checked."""
        form: Form = self.request.state.form
        return form

    def chosen(self, verbs: Mapping[str, V]) -> V:
        """The action that the form has chosen; status 403 if the viewer lacks the right for it."""
        verb = verbs.get(self.form.get("action"))
        if verb is None:
            raise HTTPException(400, "There is no such action.")
        self.require(verb.name)
        return verb

    @property
    def id(self) -> int:
        """The id of the job in the address; status 404 if no job can have it."""
        id = id_of(self.request.path_params["id"])
        if id is None:
            raise HTTPException(404, "There is no such job.")
        return id

    def asked(self, name: str) -> str:
        """A parameter of the address."""
        return self.request.query_params.get(name, "")

    @staticmethod
    def quoted(id: str) -> str:
        """An id as a part of an address. Another Oban may have used any text as an id."""
        return quote(id, safe="")

    def url(self, path: str = "", **params: Any) -> str:
        """The address of a page of this dashboard, including its mount point."""
        root = self.request.scope.get("root_path", "").rstrip("/")
        return f"{quote(root, safe='/%')}/{path}{query(**params)}"

    @property
    def here(self) -> str:
        """The address of this page, with its parameters."""
        root = self.request.scope.get("root_path", "")
        path = quote(self.request.scope["path"].removeprefix(root).lstrip("/"), safe="/")
        given = self.request.url.query
        return f"{self.url(path)}?{given}" if given else self.url(path)

    def static(self, name: str) -> str:
        """The address of a static file."""
        return self.url(f"static/{name}", v=version_of(name))

    async def shared(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`. If the page refreshes itself, its viewers share one read.

        The read is never older than the numbers of jobs that made the page refresh itself.
        """
        if "hx-request" not in self.request.headers:
            return await read()
        mark = mark_of(await self.board.status())
        return await self.board.refreshes.get((name, self.here, mark), read)

    async def render(self, template: str, status_code: int = 200, **context: Any) -> Response:
        """Answer with a page that has the numbers of jobs."""
        status = await self.board.status()
        # The answer to a form does not refresh itself: a GET of its address is another page.
        mark = mark_of(status) if self.request.method == "GET" else ""
        return self.answer(template, status_code, status=status, mark=mark, **context)

    def answer(self, template: str, status_code: int = 200, **context: Any) -> Response:
        """Answer with a page."""
        given = {
            "page": self,
            "now": client_now().astimezone(UTC),
            "csrf_field": FIELD,
            "csrf": self.request.state.csrf,
            "version": __version__,
            "navigation": NAVIGATION,
            "states": STATES,
            "verbs": JOB_VERBS,
            "status": None,
            "mark": "",
            "done": JOB_VERBS.get(self.asked("done")),
            "done_count": self.asked("n") if self.asked("n").isdecimal() else "0",
            **context,
        }
        return HTMLResponse(environment().get_template(template).render(given), status_code)

    def redirect(self, path: str, **params: Any) -> Response:
        """Send the browser to a page after a change."""
        return RedirectResponse(self.url(path, **params), 303)

    def shown(self, field: str, value: Any, worker: str) -> Any:
        """The value of a job's field that the viewer may see."""
        if not self.may("args"):
            return HIDDEN
        if self.board.mask is None or value == UNREADABLE:
            return value
        if isinstance(value, Excerpt):
            # The mask needs the whole value.
            return MASKED
        try:
            return self.board.mask(field, value, worker)
        except Exception:
            # If the mask fails, the value stays covered.
            return MASKED

    def shown_error(self, text: str, worker: str) -> str:
        """The text of an error that the viewer may see."""
        shown = self.shown("errors", [{"error": text}], worker)
        try:
            return str(shown[0]["error"])
        except (TypeError, LookupError):
            return str(shown)

    def report(self, action: str, target: str, count: int) -> None:
        """Emit the event of an action. Line breaks in the target become spaces."""
        target = cut("".join(one if one.isprintable() else " " for one in target), LONGEST_TARGET)
        self.board.report(DashboardAction(self.access.user, action, target, count))


def counts_of(status: Status, queue: str | None = None) -> dict[str, Count]:
    """How many jobs there are by state, in one queue or in all."""
    found: dict[str, Count] = {}
    for one in status.queues:
        if queue in (None, one.queue):
            for state, count in one.counts.items():
                before = found.get(state, Count(0, False))
                estimated = before.estimated or count.estimated
                found[state] = Count(before.count + count.count, estimated)
    return found
