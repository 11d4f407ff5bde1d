"""`dashboard()`: the ASGI application."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..oban import Oban
from . import actions, cron, errors, job, jobs, overview, queues, workflow_actions, workflows
from .access import Authorize
from .board import Board, Mask
from .guard import Guard
from .live import stream
from .outage import OUTAGES, explain
from .page import Page
from .rows import RowHook
from .show import STATIC


def dashboard(
    oban: Oban,
    *,
    authorize: Authorize | None = None,
    mask: Mask | None = None,
    row: RowHook | None = None,
    engine: AsyncEngine | None = None,
    timeout: float = 5.0,
) -> Starlette:
    """The dashboard of an instance, an ASGI application to mount: `app.mount("/oban", ...)`.

    The instance need not run queues, nor be started.

    authorize: takes a Starlette `Request` and returns its rights, or an awaitable of them: `None`
        for no access, `"read"`, a set of rights (`pause`, `cancel`, `retry`, `delete`, `edit`,
        `args`), an `Access` that also names the user, or a `Response` to send instead, such as a
        redirect to your login. If it raises an `HTTPException`, that is sent. Without
        `authorize`, only this machine has access, with all rights.
    mask: takes the name of a field (`args`, `meta`, `errors` or `recorded`), its value and the name
        of the worker, and returns the value to show. If it raises, no value is shown.
    row: takes the name of a model and a key, and returns the columns of that row to show, or an
        awaitable of them, for viewers with the right `args`. Without `row`, the page of a job only
        names the rows to which its arguments refer.
    engine: the engine with which pages read, for example one of a role that may only read. The
        default is the engine of the instance.
    timeout: seconds after which the database stops a statement of a page, and `row` is cancelled.
    """
    app = Starlette(
        routes=[
            Route("/", overview.overview),
            Route("/findings", overview.findings),
            Route("/live", _live),
            Route("/jobs", jobs.jobs),
            Route("/jobs/confirm", actions.confirm, methods=["POST"]),
            Route("/jobs/change", actions.change, methods=["POST"]),
            Route("/jobs/{id}", job.job),
            Route("/jobs/{id}/edit", actions.edit, methods=["POST"]),
            Route("/queues", queues.queues),
            Route("/queues/order", queues.order, methods=["POST"]),
            Route("/cron", cron.cron),
            Route("/cron/run", cron.run_entry, methods=["POST"]),
            Route("/errors", errors.errors),
            Route("/workflows", workflows.workflows),
            Route("/workflows/confirm", workflow_actions.confirm, methods=["POST"]),
            Route("/workflows/change", workflow_actions.change, methods=["POST"]),
            Route("/workflows/{id:path}", workflows.workflow),
            # Only static files are compressed: the length of a compressed page would reveal parts
            # of its token.
            Mount("/static", GZipMiddleware(_Static(directory=STATIC))),
        ],
        middleware=[Middleware(Guard, authorize=authorize)],
        exception_handlers={HTTPException: _refused, **dict.fromkeys(OUTAGES, _outage)},
    )
    app.state.board = Board(oban, engine=engine, timeout=timeout, mask=mask, row=row)
    return app


class _Static(StaticFiles):
    """Static files whose addresses change with their contents."""

    def file_response(self, *given: Any, **options: Any) -> Response:
        response = super().file_response(*given, **options)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


async def _live(request: Request) -> Response:
    board: Board = request.app.state.board
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(stream(board), media_type="text/event-stream", headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    titles = {
        400: "That can't be done",
        403: "You may not do that",
        404: "Not found",
        503: "Not finished",
    }
    title = titles.get(error.status_code, "Not possible")
    return Page(request).answer(
        "message.html", error.status_code, active="", title=title, text=error.detail
    )


async def _outage(request: Request, error: Exception) -> Response:
    title, text = explain(error)
    return Page(request).answer("message.html", 503, active="", title=title, text=text)
