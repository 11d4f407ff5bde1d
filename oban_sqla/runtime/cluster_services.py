"""The services that the leader runs for all nodes, and the seam at which features add theirs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from ..config import Config
from .cron import Cron
from .database import Database
from .lifeline import Lifeline
from .pruner import Pruner
from .service import Emit, Service


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """The parts of a node that its cluster-wide services use."""

    config: Config
    database: Database
    emit: Emit
    is_leader: Callable[[], bool]
    """Whether the node leads. Each pass of a service first checks that."""
    has_foreign_nodes: Callable[[], bool]
    """Whether nodes of another Oban run jobs. They and their leader do not know our features."""
    listened: Callable[[str], bool]
    """Whether an event has listeners."""
    wake_queues: Callable[[Collection[str]], None]
    announce: Callable[[Collection[int]], None]
    """Tells the waiters on all nodes that jobs have ended."""


ClusterService: TypeAlias = Callable[[ClusterNode], Service]
"""Builds a cluster-wide service for a node."""

_of_features: list[ClusterService] = []


def register(build: ClusterService) -> None:
    """Add a service of a feature to all nodes that start from now on."""
    if build not in _of_features:
        _of_features.append(build)


def build_cluster_services(node: ClusterNode) -> tuple[Service, ...]:
    """Build the services of the core and of the features."""
    config, database, emit = node.config, node.database, node.emit
    return (
        Lifeline(
            database,
            emit,
            is_leader=node.is_leader,
            heartbeat_expiry=config.heartbeat_expiry,
            rescue_after=config.rescue_after,
        ),
        Pruner(database, emit, is_leader=node.is_leader, retention=config.retention),
        Cron(
            database,
            emit,
            is_leader=node.is_leader,
            instance=config.name,
            timezone=config.timezone,
            wake_queues=node.wake_queues,
        ),
        *(build(node) for build in _of_features),
    )
