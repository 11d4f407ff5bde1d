"""Wake-ups within a process: the commit hook publishes them, running instances subscribe.

Wake-ups are a short cut. NOTIFY tells the other processes, and a slow poll repairs lost news.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import NamedTuple

from sqlalchemy import URL


class Address(NamedTuple):
    """The address of a database in a URL.

    If two URLs spell the address differently, only NOTIFY wakes the subscribers.
    """

    host: str | None
    port: int | None
    name: str | None

    @classmethod
    def of(cls, url: URL) -> Address:
        host = url.host or url.query.get("host")
        return cls(str(host) if host else None, url.port, url.database)


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The queues that have new jobs, and the time when the earliest scheduled job is due."""

    queues: frozenset[str] | None = frozenset()
    """`None` if the queues and the times of the jobs are unknown: every queue may have jobs."""
    due_at: datetime | None = None

    def __or__(self, other: Wakeup) -> Wakeup:
        if not self:
            return other
        if self.queues is None or other.queues is None:
            return Wakeup(queues=None)
        times = [at for at in (self.due_at, other.due_at) if at is not None]
        return Wakeup(self.queues | other.queues, min(times, default=None))

    def __bool__(self) -> bool:
        return self.queues is None or bool(self.queues) or self.due_at is not None


Deliver = Callable[[Wakeup], None]


@dataclass(frozen=True, slots=True)
class _Subscription:
    address: Address
    prefix: str | None
    loop: asyncio.AbstractEventLoop
    deliver: Deliver


# The tuple is replaced, never changed, so that a commit can read it without the lock.
_subscriptions: tuple[_Subscription, ...] = ()
_lock = Lock()


def subscribe(address: Address, prefix: str, deliver: Deliver) -> Callable[[], None]:
    """Call `deliver` for each wake-up, on the running event loop. Returns a function to end it.

    `deliver` must neither block nor raise: a commit on this event loop calls it directly.
    """
    global _subscriptions
    subscription = _Subscription(address, prefix, asyncio.get_running_loop(), deliver)
    with _lock:
        _subscriptions += (subscription,)
    return lambda: _unsubscribe(subscription)


def publish(address: Address, prefix: str | None, wakeup: Wakeup) -> None:
    """Wake the subscribers of a database, from any thread. Without a prefix, wake all of them."""
    here = _running_loop()
    for subscription in _subscriptions:
        if subscription.address != address:
            continue
        if prefix is None or subscription.prefix == prefix:
            if subscription.loop is here:
                # Called directly, since a turn of the event loop would delay the claim.
                subscription.deliver(wakeup)
                continue
            try:
                subscription.loop.call_soon_threadsafe(subscription.deliver, wakeup)
            except RuntimeError:
                # The event loop was closed before the subscriber could unsubscribe.
                _unsubscribe(subscription)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _unsubscribe(subscription: _Subscription) -> None:
    global _subscriptions
    with _lock:
        _subscriptions = tuple(s for s in _subscriptions if s is not subscription)


def _forget_parent() -> None:
    # A forked child inherits the subscriptions, but the event loops run only in its parent. Another
    # thread of the parent may have held the lock.
    global _subscriptions, _lock
    _subscriptions = ()
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
