"""Live: a stream that says when there is something new to see.

All streams share one look at the database a second. Without a stream, nobody looks.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

from ..monitor.status import Status
from .board import Board
from .outage import OUTAGES

INTERVAL = 1.0
# A server that stops waits for its responses: a stream ends by itself, and the browser reconnects.
LONGEST = 25.0
RECONNECT = 1000  # milliseconds


async def stream(board: Board, *, longest: float = LONGEST) -> AsyncIterator[str]:
    """Server-sent events: `pulse` with the mark of the status when that changes, or `outage`."""
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
    """A text that changes when a page would: with the jobs, the nodes and their queues."""
    nodes = [
        (node.node, node.alive, [(q.queue, q.limit, q.paused, q.running) for q in node.queues])
        for node in status.nodes
    ]
    leaders = [(lease.node, lease.expires_in > 0) for lease in status.leaders]
    queues = [(queue.queue, sorted(queue.counts.items(), key=str)) for queue in status.queues]
    text = repr((nodes, leaders, queues)).encode()
    return hashlib.sha256(text).hexdigest()[:12]
