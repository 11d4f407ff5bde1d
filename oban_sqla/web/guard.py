"""The guard: checks access and the origin of forms before any page, and sets security headers."""

import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, Authorize, access_of
from .form import FormTooLargeError, read_form

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # The address of a page may hold arguments.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
COOKIE = "oban_csrf"
FIELD = "csrf"
# 256 bits in URL-safe base64.
_TOKEN_LENGTH = 43

FORBIDDEN = "You may not see this dashboard."
ONLY_HERE = """\
Without authorize=, this dashboard is served only to its own machine, by the name localhost and
without a proxy. Pass dashboard(oban, authorize=...) to serve it to others.
"""


class Guard:
    """Refuses requests without access, and forms that another site has forged."""

    def __init__(self, app: ASGIApp, authorize: Authorize | None) -> None:
        self._app = app
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        token = _token(request)
        refusal = await self._refusal(request, token)
        respond = _with_headers(send, request, token)
        await (refusal or self._app)(scope, receive, respond)

    async def _refusal(self, request: Request, token: str) -> Response | None:
        try:
            access = await access_of(request, self._authorize)
        except HTTPException as error:
            return PlainTextResponse(str(error.detail), error.status_code, headers=error.headers)
        if isinstance(access, Response):
            return access
        if access is None:
            return PlainTextResponse(FORBIDDEN if self._authorize else ONLY_HERE, 403)
        request.state.access = access
        request.state.csrf = token
        if request.method in ("GET", "HEAD"):
            return None
        return await _forged(request, token, access)


def _token(request: Request) -> str:
    """The token of a browser, from its cookie, or a new token."""
    token = request.cookies.get(COOKIE, "")
    return token if len(token) == _TOKEN_LENGTH else secrets.token_urlsafe(32)


async def _forged(request: Request, token: str, access: Access) -> Response | None:
    """Refuse a request that does not come from a form of this dashboard."""
    try:
        form = request.state.form = await read_form(request)
    except FormTooLargeError:
        return PlainTextResponse("the form is too large", 413)
    given = form.get(FIELD, "").encode()
    if not secrets.compare_digest(given, request.cookies.get(COOKIE, "").encode()) or not given:
        return PlainTextResponse("the form has expired: go back, reload the page, try again", 403)
    if not _same_origin(request):
        return PlainTextResponse("the form comes from another site", 403)
    return None


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Browsers may omit one header on http:// with a host name; programs may omit both.
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        address = urlsplit(origin).netloc
    except ValueError:
        return False
    return address in (request.headers.get("host"), request.headers.get("x-forwarded-host"))


def _with_headers(send: Send, request: Request, token: str) -> Send:
    async def respond(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            headers.setdefault("Cache-Control", "no-store")
            if request.method == "GET" and request.cookies.get(COOKIE) != token:
                path = quote(request.scope.get("root_path", ""), safe="/%") or "/"
                secure = "; Secure" if request.url.scheme == "https" else ""
                headers.append(
                    "Set-Cookie",
                    f"{COOKIE}={token}; Path={path}; HttpOnly; SameSite=Strict{secure}",
                )
        await send(message)

    return respond
