"""The overview: charts, queues and nodes, and the findings of the doctor."""

from starlette.requests import Request
from starlette.responses import Response

from ..monitor.status import Status
from .chart import queue_times, throughput
from .page import Page, counts_of

WINDOWS = {"hour": 3600.0, "day": 86400.0}
MOST = 100
"""The most queues, and the most nodes, that are listed."""
LATE = 60.0
"""Seconds; a queue whose oldest available job waits for longer is marked."""


async def overview(request: Request) -> Response:
    page = Page(request)
    status = await page.board.status()
    window = page.asked("window") if page.asked("window") in WINDOWS else "hour"
    names = [queue.queue for queue in status.queues]
    queue = page.asked("queue") if page.asked("queue") in names else None
    listed = [one for one in status.queues if queue in (None, one.queue)]
    history = await page.board.history(WINDOWS[window], queue)
    everything = history if queue is None else await page.board.history(WINDOWS[window])
    return await page.render(
        "overview.html",
        active="overview",
        title="Overview",
        counts=counts_of(status, queue),
        window=window,
        queue=queue,
        queue_names=names[:MOST],
        most=MOST,
        listed=listed[:MOST],
        more=max(0, len(listed) - MOST),
        history=history,
        by_queue=everything.queues,
        throughput=throughput(history),
        queue_times=queue_times(history),
        oldest=_oldest(status, queue),
        late=LATE,
        leaders={(one.instance, one.node) for one in status.leaders if one.expires_in > 0},
    )


async def findings(request: Request) -> Response:
    """The findings of the doctor: a part of the overview that is loaded separately."""
    page = Page(request)
    found = [one for one in await page.board.findings() if one.level != "ok"]
    found.sort(key=lambda one: one.level != "problem")
    return page.answer("findings.html", findings=found)


def _oldest(status: Status, queue: str | None) -> float | None:
    waits = (one.oldest_available for one in status.queues if queue in (None, one.queue))
    return max((wait for wait in waits if wait is not None), default=None)
