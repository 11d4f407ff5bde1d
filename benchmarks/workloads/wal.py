"""B13: the bytes of WAL for a job, from its insert to its outcome."""

from benchmarks.contestant import Drains
from benchmarks.workload import Measured, Target, Workload, itself

LIMIT = 20
WRITTEN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
ENQUEUE, RUN = "enqueue, bytes/job", "run, bytes/job"


async def wal(contestant: Drains, count: int) -> Measured:
    # The tables were nearly empty at the last checkpoint, so few pages are written in full.
    began = await contestant.number(WRITTEN)
    await contestant.enqueue_many(count)
    enqueued = await contestant.number(WRITTEN)
    await contestant.expect(contestant.waiting, count)
    await contestant.drain(count, LIMIT)
    await contestant.until(contestant.finished, count)
    ended = await contestant.number(WRITTEN)
    return Measured({ENQUEUE: (enqueued - began) / count, RUN: (ended - enqueued) / count})


WORKLOADS = (
    Workload(
        "B13",
        f"the WAL of {{count}} jobs: enqueue them in one transaction, and run them {LIMIT} at once",
        Drains,
        wal,
        5_000,
        (
            Target("enqueue: at most 400 bytes per job", itself("B13", ENQUEUE), at_most=400),
            Target("run: at most 1,400 bytes per job", itself("B13", RUN), at_most=1400),
        ),
        most_runs=1,
    ),
)
