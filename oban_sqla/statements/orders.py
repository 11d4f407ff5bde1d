"""Orders to queues: stored for nodes that miss the notification, and sent to nodes that listen."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Text, and_, delete, func, literal, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import insert

from ..clock import database_now, interval
from ..models import QueueOrder
from .announce import ORDER, SIGNAL, notify

EVERY = "*"
"""Every node, or every queue."""


def store_order(
    order: Mapping[str, Any],
    *,
    name: str,
    node: str,
    kind: str,
    prefix: str | None = None,
    now: datetime | None = None,
) -> Executable:
    """Store an order, announce it to our nodes, and send it to the nodes of other Obans.

    The new order replaces older orders to a subset of its queues and nodes. If two orders are
    stored at the same time, the order that is written last wins.
    """
    queue = order["queue"]
    values = {"name": name, "node": node, "queue": queue, "setting": kind}
    statement = insert(QueueOrder).values(**values, value=dict(order), changed_at=database_now(now))
    new = statement.excluded
    kept = (
        statement.on_conflict_do_update(
            index_elements=list(values),
            set_={
                "value": new.value,
                "changed_at": func.greatest(new.changed_at, QueueOrder.changed_at + interval(1e-6)),
            },
        )
        .returning(QueueOrder.changed_at)
        .cte("kept")
    )
    covered = and_(
        QueueOrder.name == name,
        QueueOrder.setting == kind,
        or_(QueueOrder.node != node, QueueOrder.queue != queue),
        # The subquery runs after the insert, so two statements lock their rows in the same order.
        QueueOrder.changed_at < select(kept.c.changed_at).scalar_subquery(),
        true() if node == EVERY else QueueOrder.node == node,
        true() if queue == EVERY else QueueOrder.queue == queue,
    )
    news = [(ORDER, {"name": name, "signal": order}), (SIGNAL, order)]
    rows = union_all(
        *(
            select(
                literal(channel, Text).label("channel"),
                literal(json.dumps(payload)).label("payload"),
            )
            for channel, payload in news
        )
    )
    return (
        notify(rows, prefix).add_cte(kept).add_cte(delete(QueueOrder).where(covered).cte("covered"))
    )


def orders_to(name: str, node: str) -> Executable:
    """The orders that a node of an instance must follow, the oldest first."""
    return (
        select(
            QueueOrder.node,
            QueueOrder.queue,
            QueueOrder.setting,
            QueueOrder.value,
            QueueOrder.changed_at,
        )
        .where(QueueOrder.name == name, QueueOrder.node.in_((EVERY, node)))
        .order_by(QueueOrder.changed_at, QueueOrder.node, QueueOrder.queue, QueueOrder.setting)
    )
