"""`Access`: the user of a request to the dashboard, and the user's rights."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

Right = Literal["pause", "cancel", "retry", "delete", "edit", "args"]
RIGHTS: frozenset[Right] = frozenset(get_args(Right))
"""All rights. The right `args` is needed to see arguments, errors and other data of users."""

# Headers that a proxy adds begin so. Behind a proxy, the client's address is that of the proxy.
_PROXIED = ("forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "x-original-", "cf-")
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

    The host name matters, since a foreign web page can let its own name point to 127.0.0.1. A proxy
    on this machine may replace it and add no header, but then it often speaks HTTP/1.0, as no
    browser does, and leaves the name that the browser knows in `Origin` and `Referer`.
    """
    headers = request.headers
    if request.client is None or any(name.startswith(_PROXIED) for name in headers):
        return False
    if request.scope.get("http_version") == "1.0" or not _is_local(headers.get("host", "")):
        return False
    own = headers.get("sec-fetch-site") == "same-origin"
    pages = [headers[name] for name in ("origin", "referer") if own and name in headers]
    try:
        is_direct = all(_is_local(urlsplit(page).netloc) for page in pages)
        return is_direct and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _is_local(address: str) -> bool:
    """Whether a host, with or without a port, is a name of this machine."""
    host, _, port = address.rpartition(":")
    name = host if host and port.isdigit() else address
    return name.lower() in _LOOPBACK_NAMES
