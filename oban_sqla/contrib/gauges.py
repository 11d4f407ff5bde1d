"""The values of the gauges: from the vitals of a node, and from the counted jobs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ..events import JobsCounted
from ..models import JobState
from ..runtime.vitals import QueueVitals, Vitals
from . import instruments
from .instruments import Instrument
from .labels import Labels, Names

Reading: TypeAlias = tuple[Instrument, Labels, float]
"""The value of a gauge."""


def of_node(oban: str, vitals: Vitals, name: Names) -> Iterator[Reading]:
    """The gauges of a node, from its vitals."""
    queues: dict[str, list[QueueVitals]] = defaultdict(list)
    for one in vitals.queues:
        queues[name(one.queue)].append(one)
    for queue, some in queues.items():
        labels = (oban, queue)
        yield instruments.LIMIT, labels, sum(one.limit for one in some)
        yield instruments.EXECUTING, labels, sum(one.executing for one in some)
        yield instruments.HELD, labels, sum(one.held for one in some)
        yield instruments.PAUSED, labels, any(one.paused for one in some)
    yield instruments.WAITING, (oban,), vitals.outcomes
    yield instruments.LEADER, (oban,), vitals.leader
    if vitals.listening is not None:
        yield instruments.LISTENING, (oban,), vitals.listening
    if vitals.heartbeat_age is not None:
        yield instruments.HEARTBEAT_AGE, (oban,), vitals.heartbeat_age
    yield instruments.RETRIES, (oban,), max(vitals.failures.values(), default=0)


def of_table(
    oban: str, counted: JobsCounted, queues: Iterable[str], name: Names
) -> Iterator[Reading]:
    """The gauges of the jobs in the table, as the leader counted them."""
    jobs: Counter[tuple[str, str]] = Counter()
    for (queue, state), count in counted.counts.items():
        jobs[name(queue), state] += count
    # Running queues without jobs have the value 0.
    oldest = dict.fromkeys((*map(name, queues), *(queue for queue, _ in jobs)), 0.0)
    for queue, seconds in counted.oldest_available.items():
        oldest[name(queue)] = max(oldest.get(name(queue), 0.0), seconds)
    for queue, seconds in oldest.items():
        jobs[queue, JobState.AVAILABLE.value] += 0
        yield instruments.OLDEST_AVAILABLE, (oban, queue), seconds
    for (queue, state), count in jobs.items():
        yield instruments.JOBS, (oban, queue, state), count
    yield instruments.ESTIMATED, (oban,), counted.estimated
