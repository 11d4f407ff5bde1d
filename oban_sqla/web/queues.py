"""The page of queues: their nodes, their jobs, and orders to them."""

import json
import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .form import Form
from .limited import keys_of_queues
from .overview import LATE, WINDOWS
from .page import Page
from .terms import terms_of_queues

MOST = 40
"""The most queues on the page."""
ORDERS = {"pause": "pause", "resume": "go on", "scale": "take the new limit"}
"""The orders, and what they tell the nodes to do."""


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
        terms=terms_of_queues(status),
        keys=await keys_of_queues(page),
        late=LATE,
        ordered=ORDERS.get(page.asked("ordered")),
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
            if changes := _changes(page.form):
                await oban.scale_queue(queue=queue, **changes, node=node)
        else:
            raise ValueError(f"there is no order {action!r}")
    except (ValueError, TypeError) as error:
        raise HTTPException(400, str(error)) from None
    where = f"{queue} on {node}" if node else queue
    page.report(f"{action}_queue", where, 1)
    return page.redirect("queues", ordered=action, queue=queue, node=node)


def _changes(form: Form) -> dict[str, Any]:
    """The limits in a form that the user has changed; `None` for a limit that was removed."""
    changes: dict[str, Any] = {}
    if limit := form.get("limit"):
        changes["limit"] = _count("limit", limit)
    if (limit := form.get("global_limit")) != form.get("global_was"):
        keys = _keys(form.get("global_keys"))
        allowed = _count("limit", limit) if limit else None
        changes["global_limit"] = {**keys, "allowed": allowed} if keys and allowed else allowed
    rate = {name: form.get(name) for name in ("starts", "period", "burst")}
    if "/".join(rate.values()) != form.get("rate_was", "//"):
        keys = _keys(form.get("rate_keys"))
        changes["rate_limit"] = {**_rate(**rate), **keys} if any(rate.values()) else None
    return changes


def _keys(text: str) -> dict[str, Any]:
    """The keys by which the limit counts, which a change of its number leaves as they are."""
    try:
        keys = json.loads(text or "{}")
    except (ValueError, RecursionError):
        keys = None
    if not isinstance(keys, dict) or not keys.keys() <= {"partition", "burst"}:
        raise ValueError(f"the keys of a limit are its partition and burst, not {text!r}")
    return keys


def _rate(starts: str, period: str, burst: str) -> dict[str, Any]:
    if not (starts and period):
        raise ValueError("a rate has a number of jobs, and of seconds; leave both empty for none")
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", period, re.ASCII):
        raise ValueError(f"a period is a number of seconds, not {period!r}")
    return {
        "allowed": _count("rate", starts),
        "period": float(period),
        "burst": _count("burst", burst) if burst else 0,
    }


def _count(what: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"a {what} is a number, not {text!r}")
    return int(text)
