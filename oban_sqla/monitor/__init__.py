"""The monitor: read the state of nodes, queues, cron and jobs."""

from ..runtime import cluster_services
from ..runtime.cluster_services import ClusterNode
from .job_counter import JobCounter


def _job_counter(node: ClusterNode) -> JobCounter:
    return JobCounter(node.database, node.emit, is_leader=node.is_leader, listened=node.listened)


cluster_services.register(_job_counter)
