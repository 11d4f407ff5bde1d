"""Actions on workflows: ask for a confirmation with their number, and cancel or retry them."""

from collections import Counter
from collections.abc import AsyncGenerator

from sqlalchemy import Executable, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..workflows.workflow import Workflow
from .carry_out import carry_out
from .page import Page
from .workflow_verbs import WORKFLOW_VERBS, WorkflowVerb
from .workflows import columns, matching

MOST = 500
"""The most workflows that one action changes, the oldest first."""
LONGEST_ID = 1000


async def confirm(request: Request) -> Response:
    """Ask for a confirmation to change the selected workflows, with their number."""
    page = Page(request)
    verb = page.chosen(WORKFLOW_VERBS)
    await page.board.reads.verify()
    found = await page.board.reads.fetch(_chosen(page, verb))
    return await page.render(
        "confirm_workflows.html",
        active="workflows",
        title=f"{verb.name.capitalize()} workflows",
        verb=verb,
        found=found,
        counts=Counter(row.state for row in found),
        steps=sum(map(verb.count, found)),
        most=MOST,
        back=page.url(**_back(page)),
    )


async def change(request: Request) -> Response:
    """Change the confirmed workflows that still have steps to change."""
    page = Page(request)
    verb = page.chosen(WORKFLOW_VERBS)
    await page.board.reads.verify()
    found = await page.board.reads.fetch(_chosen(page, verb))
    ids = [row.id for row in found]
    parts = _parts(page, verb, ids)
    changed = await carry_out(page, verb, "workflow", parts, lambda count: _target(ids[:count]))
    return page.redirect(**_back(page), done=verb.name, n=changed)


async def _parts(page: Page, verb: WorkflowVerb, ids: list[str]) -> AsyncGenerator[int, None]:
    oban = page.board.oban
    act = {"retry": oban.retry, "cancel": oban.cancel}[verb.name]
    for id in ids:
        async with page.board.session() as session:
            await act(id, conn=session)
        yield 1


def _chosen(page: Page, verb: WorkflowVerb) -> Executable:
    """The workflows that a form selects, by ids or by a search, if the action is possible."""
    form = page.form
    if form.get("scope") == "search":
        chosen = matching(form.get("state"), form.get("q"))
    else:
        chosen = [Workflow.id.in_(_ids(form.all("id")))]
    found = select(*columns()).where(*chosen, verb.possible)
    return found.order_by(Workflow.inserted_at, Workflow.id).limit(MOST)


def _ids(given: list[str]) -> list[str]:
    if not given:
        raise HTTPException(400, "No workflow is selected. Tick some, or choose all.")
    if len(given) > MOST or any("\0" in id or len(id) > LONGEST_ID for id in given):
        raise HTTPException(400, f"A selection has up to {MOST} workflows.")
    return given


def _back(page: Page) -> dict[str, str]:
    """The page to which to return: that of the workflow, or the list with its search."""
    form = page.form
    if form.get("back") == "workflow" and form.get("id"):
        return {"path": f"workflows/{page.quoted(form.get('id'))}"}
    return {"path": "workflows", "state": form.get("state"), "q": form.get("q")}


def _target(ids: list[str]) -> str:
    return f"workflows {', '.join(ids[:10])}{' and others' if len(ids) > 10 else ''}"
