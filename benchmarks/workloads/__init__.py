"""The workloads, in the order of their names."""

from benchmarks.workload import Workload
from benchmarks.workloads import (
    drain,
    due,
    enqueue,
    growth,
    idle,
    limits,
    memory,
    notify,
    processes,
    queues,
    start,
    telemetry,
    waiting,
    wal,
    workflows,
)

WORKLOADS: dict[str, Workload] = {
    one.name: one
    for one in sorted(
        (
            *enqueue.WORKLOADS,
            *drain.WORKLOADS,
            *processes.WORKLOADS,
            *queues.WORKLOADS,
            *start.WORKLOADS,
            *idle.WORKLOADS,
            *memory.WORKLOADS,
            *notify.WORKLOADS,
            *growth.WORKLOADS,
            *wal.WORKLOADS,
            *telemetry.WORKLOADS,
            *waiting.WORKLOADS,
            *due.WORKLOADS,
            *limits.WORKLOADS,
            *workflows.WORKLOADS,
        ),
        key=lambda one: (int("".join(filter(str.isdigit, one.name))), one.name),
    )
}
"""By name."""
