"""Why a job waits, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..durations import duration
from ..monitor.status import QueueStatus, Status


def why(
    job: Mapping[str, Any], status: Status, now: datetime, steps: Sequence[Any] = ()
) -> list[str]:
    """What a job that is not finished waits for, the first cause first; nothing if it is.

    steps: those of its workflow that it waits for.
    """
    state = job["state"]
    due_in = (job["scheduled_at"].replace(tzinfo=now.tzinfo) - now).total_seconds()
    queue = next((one for one in status.queues if one.queue == job["queue"]), None)
    if state == "scheduled":
        return [_until(due_in, "It is scheduled"), *_of_queue(queue)]
    if state == "retryable":
        failed = f"Attempt {job['attempt']} of {job['max_attempts']} failed, and the next one"
        return [_until(due_in, f"{failed} begins"), *_of_queue(queue)]
    if state == "suspended":
        return [_of_steps(steps)]
    if state == "available":
        return [*_of_queue(queue), *_places(queue)]
    return []


def _until(due_in: float, what: str) -> str:
    if due_in > 0:
        return f"{what} in {duration(due_in)}."
    return f"{what} as soon as a node stages it; it has been due for {duration(-due_in)}."


def _of_steps(steps: Sequence[Any]) -> str:
    waiting = [step.name for step in steps if step.ended is None]
    if not waiting:
        return "It is held back, until whatever suspended it makes it available."
    if len(waiting) == 1:
        return f"It waits for step {waiting[0]} of its workflow."
    few = ", ".join(waiting[:5]) + (", and others" if len(waiting) > 5 else "")
    return f"It waits for {len(waiting)} steps of its workflow: {few}."


def _of_queue(queue: QueueStatus | None) -> Iterator[str]:
    if queue is None or not queue.nodes:
        yield "No living node runs its queue."
    elif queue.paused == queue.nodes:
        yield "Its queue is paused."
    elif queue.paused:
        yield f"Its queue is paused on {queue.paused} of {queue.nodes} nodes."


def _places(queue: QueueStatus | None) -> Iterator[str]:
    if queue is None or not queue.nodes or queue.paused == queue.nodes:
        return
    if queue.running >= queue.limit:
        yield f"All {queue.limit} places of its queue are taken."
    waiting = queue.counts.get("available")
    if waiting is not None and waiting.count > 1:
        about = "about " if waiting.estimated else ""
        yield f"{about}{waiting.count:,} jobs of its queue are available.".capitalize()
