"""Orders to queues: kept for the nodes that do not hear them, and told to those that do."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Text, and_, delete, func, literal, or_, select, true, union_all
from sqlalchemy.dialects.postgresql import insert

from ..clock import database_now, interval
from ..models import Control
from .announce import ORDER, SIGNAL, notify

EVERY = "*"
"""Every node, or every queue."""


def order(
    signal: Mapping[str, Any],
    *,
    name: str,
    node: str,
    setting: str,
    prefix: str | None = None,
    now: datetime | None = None,
) -> Executable:
    """Keep an order, and announce it to our nodes, and its signal to those of other Obans.

    It replaces the older ones that it covers. Of two at once that which is kept is the later.
    """
    queue = signal["queue"]
    values = {"name": name, "node": node, "queue": queue, "setting": setting}
    statement = insert(Control).values(**values, value=dict(signal), changed_at=database_now(now))
    new = statement.excluded
    kept = (
        statement.on_conflict_do_update(
            index_elements=list(values),
            set_={
                "value": new.value,
                "changed_at": func.greatest(new.changed_at, Control.changed_at + interval(1e-6)),
            },
        )
        .returning(Control.changed_at)
        .cte("kept")
    )
    covered = and_(
        Control.name == name,
        Control.setting == setting,
        or_(Control.node != node, Control.queue != queue),
        # After the one that is kept, always: so that two at once can't wait for each other.
        Control.changed_at < select(kept.c.changed_at).scalar_subquery(),
        true() if node == EVERY else Control.node == node,
        true() if queue == EVERY else Control.queue == queue,
    )
    news = [(ORDER, {"name": name, "signal": signal}), (SIGNAL, signal)]
    rows = union_all(
        *(
            select(
                literal(channel, Text).label("channel"),
                literal(json.dumps(payload)).label("payload"),
            )
            for channel, payload in news
        )
    )
    return notify(rows, prefix).add_cte(kept).add_cte(delete(Control).where(covered).cte("covered"))


def orders(name: str, node: str) -> Executable:
    """The orders that a node of an instance has to follow, the oldest first."""
    return (
        select(Control.node, Control.queue, Control.setting, Control.value, Control.changed_at)
        .where(Control.name == name, Control.node.in_((EVERY, node)))
        .order_by(Control.changed_at, Control.node, Control.queue, Control.setting)
    )
