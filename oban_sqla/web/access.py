"""`Access`: the user of a request to the dashboard, and the user's rights."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeAlias, get_args

from starlette.requests import Request
from starlette.responses import Response

Right = Literal["pause", "cancel", "retry", "delete", "edit", "args"]
RIGHTS: frozenset[Right] = frozenset(get_args(Right))
"""All rights. The right `args` is needed to see arguments, errors and other data of users."""

# Headers that a proxy adds. Behind a proxy, the address of the client is that of the proxy.
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of a user."""

    rights: frozenset[Right] = frozenset()
    """Without any right, a user sees states, queues, workers and times."""
    user: str | None = None
    """The name that the event `dashboard_action` reports."""


Answer: TypeAlias = Access | Iterable[Right] | Literal["read"] | Response | None
Authorize: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]


async def access_of(request: Request, authorize: Authorize | None) -> Access | Response | None:
    """The access of a request; `None` if it has none; or a response to send instead.

    `TypeError` or `ValueError` for another answer of `authorize`.
    """
    if authorize is None:
        return Access(RIGHTS, "loopback") if is_loopback(request) else None
    answer = authorize(request)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or isinstance(answer, Access | Response):
        return answer
    if answer == "read":
        return Access()
    if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        raise TypeError(
            "authorize must return None, 'read', a set of rights, an Access or a Response,"
            f" not {answer!r}"
        )
    rights = frozenset(answer)
    if unknown := rights - RIGHTS:
        raise ValueError(f"there are no rights {sorted(unknown)}; there are {sorted(RIGHTS)}")
    return Access(rights)


def is_loopback(request: Request) -> bool:
    """Whether a request comes directly from this machine, and uses a local host name.

    The host name matters, since a foreign web page can let its own name point to 127.0.0.1.
    """
    if request.client is None or any(name in request.headers for name in _PROXIED):
        return False
    host, _, port = request.headers.get("host", "").rpartition(":")
    name = host if host and port.isdigit() else request.headers.get("host", "")
    try:
        return name.lower() in _LOOPBACK_NAMES and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
