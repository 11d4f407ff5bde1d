"""Workflows: graphs of jobs, as objects of a session."""

from ..enqueue import unit_of_work as jobs_unit_of_work
from ..runtime.cluster_services import ClusterNode
from ..runtime.cluster_services import register as add_service
from ..runtime.following import register as add_follower
from ..runtime.reasons import register as add_reason
from . import job_parts as _job_parts  # noqa: F401 - adds to the model of jobs
from . import unit_of_work
from .chain_follower import ChainFollower
from .follower import WorkflowFollower
from .keeper import WorkflowKeeper
from .pruner import WorkflowPruner
from .reasons import chain_reason, step_reason


def _keeper(node: ClusterNode) -> WorkflowKeeper:
    return WorkflowKeeper(
        node.database,
        node.emit,
        is_leader=node.is_leader,
        has_foreign_nodes=node.has_foreign_nodes,
        announce=node.announce,
    )


def _pruner(node: ClusterNode) -> WorkflowPruner:
    return WorkflowPruner(
        node.database, node.emit, is_leader=node.is_leader, retention=node.config.retention
    )


# The order matters: some listeners of workflows run before those of jobs, the others after them.
jobs_unit_of_work.attach()
unit_of_work.attach()
add_follower(WorkflowFollower())
add_follower(ChainFollower())
add_reason(step_reason)
add_reason(chain_reason)
add_service(_keeper)
add_service(_pruner)
