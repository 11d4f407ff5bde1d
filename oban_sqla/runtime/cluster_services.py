"""Build the services that the leader runs for all nodes, including those of features."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from ..config import Config
from .cron import Cron
from .database import Database
from .lifeline import Lifeline
from .pruner import Pruner
from .service import Emit, Service


class ClusterService(Protocol):
    """The factory of a service that the leader runs for all nodes. Features add theirs."""

    def __call__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        listened: Callable[[str], bool],
    ) -> Service: ...


def build_cluster_services(
    config: Config,
    database: Database,
    emit: Emit,
    *,
    is_leader: Callable[[], bool],
    listened: Callable[[str], bool],
    wake_queues: Callable[[Collection[str]], None],
    of_features: Sequence[ClusterService],
) -> tuple[Service, ...]:
    """Build the services. Each pass of them first checks that this node is the leader."""
    return (
        Lifeline(
            database,
            emit,
            is_leader=is_leader,
            heartbeat_expiry=config.heartbeat_expiry,
            rescue_after=config.rescue_after,
        ),
        Pruner(database, emit, is_leader=is_leader, retention=config.retention),
        Cron(
            database,
            emit,
            is_leader=is_leader,
            instance=config.name,
            timezone=config.timezone,
            wake_queues=wake_queues,
        ),
        *(build(database, emit, is_leader=is_leader, listened=listened) for build in of_features),
    )
