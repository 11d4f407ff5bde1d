"""Live: a stream of events that tells a page when to reload.

All streams share one query per second. Without a stream, there is no query.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

from ..monitor.status import Status
from .board import Board
from .outage import OUTAGES
from .terms import terms_of

INTERVAL = 1.0
# A stopping server waits for its responses. So a stream ends by itself, and the browser reconnects.
LONGEST = 25.0
RECONNECT = 1000  # milliseconds


async def stream(board: Board, *, longest: float = LONGEST) -> AsyncIterator[str]:
    """Server-sent events: `pulse` with a mark of the status when it changes, or `outage`."""
    ends = time.monotonic() + longest
    last = ""
    yield f"retry: {RECONNECT}\n\n"
    while time.monotonic() < ends:
        try:
            event = f"event: pulse\ndata: {mark_of(await board.status())}\n\n"
        except OUTAGES:
            event = "event: outage\ndata:\n\n"
        if event != last:
            yield event
        last = event
        await asyncio.sleep(INTERVAL)


def mark_of(status: Status) -> str:
    """A mark that changes whenever the jobs, nodes or queues on a page change."""
    nodes = [
        (
            node.node,
            node.alive,
            [(q.queue, q.limit, q.paused, q.running, terms_of(q)) for q in node.queues],
        )
        for node in status.nodes
    ]
    leaders = [(lease.node, lease.expires_in > 0) for lease in status.leaders]
    queues = [(queue.queue, sorted(queue.counts.items(), key=str)) for queue in status.queues]
    text = repr((nodes, leaders, queues)).encode()
    return hashlib.sha256(text).hexdigest()[:12]
