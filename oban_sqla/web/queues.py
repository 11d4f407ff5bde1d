"""The page of queues: their nodes, their jobs, and orders to them."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..config import Config
from .limited import keys_of_queues, limits_of_queues
from .overview import LATE, WINDOWS
from .page import Page

MOST = 40
"""The most queues on the page."""


async def queues(request: Request) -> Response:
    page = Page(request)
    status = await page.board.status()
    history = await page.board.history(WINDOWS["hour"])
    runs: dict[str, list[object]] = {queue.queue: [] for queue in status.queues}
    for node in status.nodes:
        for queue in node.queues:
            runs.setdefault(queue.queue, []).append((node, queue))
    name = page.asked("q")
    listed = [queue for queue in status.queues if name in queue.queue]
    return await page.render(
        "queues.html",
        active="queues",
        title="Queues",
        runs=runs,
        name=name,
        listed=listed[:MOST],
        more=max(0, len(listed) - MOST),
        by_queue=history.queues,
        limits=await limits_of_queues(page),
        keys=await keys_of_queues(page),
        late=LATE,
    )


async def order(request: Request) -> Response:
    """Pause, resume or scale a queue, on one node or on all nodes."""
    page = Page(request)
    page.require("pause")
    action, queue = page.form.get("action"), page.form.get("queue")
    node = page.form.get("node") or None
    oban = page.board.oban
    try:
        if action == "pause":
            await oban.pause_queue(queue, node=node)
        elif action == "resume":
            await oban.resume_queue(queue, node=node)
        elif action == "scale":
            limit = _limit(page.form.get("limit"))
            await oban.scale_queue(queue=queue, limit=limit, node=node)
        else:
            raise ValueError(f"there is no order {action!r}")
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    where = f"{queue} on {node}" if node else queue
    page.report(f"{action}_queue", where, 1)
    return page.redirect("queues")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise ValueError(f"a limit is a number, not {text!r}")
    Config.check(queues={"limit": int(text)})
    return int(text)
