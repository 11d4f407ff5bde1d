"""Actions on workflows: ask for a confirmation with their number, and cancel or retry them."""

import time
from collections import Counter

from sqlalchemy import Executable, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..workflows.workflow import Workflow
from .actions import LONGEST
from .outage import OUTAGES
from .page import Page
from .workflow_verbs import FLOW_VERBS, FlowVerb
from .workflows import columns, matching

MOST = 500
"""The most workflows that one action changes, the oldest first."""
LONGEST_ID = 1000


async def confirm(request: Request) -> Response:
    """Ask for a confirmation to change the selected workflows, with their number."""
    page = Page(request)
    verb = _verb(page)
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
    verb = _verb(page)
    await page.board.reads.verify()
    found = await page.board.reads.fetch(_chosen(page, verb))
    oban = page.board.oban
    act = {"retry": oban.retry, "cancel": oban.cancel}[verb.name]
    changed: list[str] = []
    until = time.monotonic() + LONGEST
    try:
        for row in found:
            async with page.board.session() as session:
                await act(row.id, conn=session)
            changed.append(row.id)
            if time.monotonic() > until:
                break
    except OUTAGES as error:
        if not changed:
            raise
        noun = "workflow" if len(changed) == 1 else "workflows"
        said = f"{len(changed):,} {noun} {verb.done}, and then the database failed."
        raise HTTPException(503, f"{said} Repeat it for the other workflows.") from error
    finally:
        # Reported even if the database failed half way.
        if changed:
            page.report(f"{verb.name}_workflows", _target(changed), len(changed))
    return page.redirect(**_back(page), done=verb.name, n=len(changed))


def _verb(page: Page) -> FlowVerb:
    verb = FLOW_VERBS.get(page.form.get("action"))
    if verb is None:
        raise HTTPException(400, "There is no such action on workflows.")
    page.require(verb.name)
    return verb


def _chosen(page: Page, verb: FlowVerb) -> Executable:
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
