"""A dashboard without scripts: fetch pages, and send their forms."""

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from httpx import ASGITransport, AsyncClient, Response
from starlette.types import ASGIApp


class Form:
    """A form of a page."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.fields: list[tuple[str, str]] = []
        self.buttons: list[tuple[str, str]] = []


class Reader(HTMLParser):
    """Reads the elements, the links and the forms of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.forms: list[Form] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag == "form":
            self.forms.append(Form(given.get("action") or ""))
        elif tag == "input" and self.forms and given.get("type") == "hidden":
            self.forms[-1].fields.append((given["name"] or "", given.get("value") or ""))
        elif tag == "button" and self.forms and given.get("name"):
            self.forms[-1].buttons.append((given["name"] or "", given.get("value") or ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """The text of the page, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def link(self, text: str) -> str | None:
        """The address of the first link with this text in its address."""
        links = (given.get("href") or "" for tag, given in self.elements if tag == "a")
        return next((address.lstrip("/") for address in links if text in address), None)

    @property
    def addresses(self) -> list[str]:
        """The addresses of links, forms, scripts and styles."""
        names = ("href", "src", "action", "hx-get", "data-live")
        return [
            given[name] or ""
            for tag, given in self.elements
            for name in names
            if given.get(name) and tag != "use"
        ]


class Site:
    """A client of a dashboard, with cookies like a browser."""

    def __init__(
        self, app: ASGIApp, *, at: str = "", host: str = "localhost", peer: str = "127.0.0.1"
    ) -> None:
        self.at = at
        self.app = app
        self.client = AsyncClient(
            transport=ASGITransport(app, client=(peer, 50000)), base_url=f"http://{host}"
        )

    def look_again(self) -> None:
        """Let the next page read the numbers of jobs and the nodes again."""
        self.app.state.board._status._fresh_until = 0.0  # type: ignore[attr-defined]

    async def get(self, path: str = "", status: int = 200, **options: Any) -> Response:
        response = await self.client.get(f"{self.at}/{path}", **options)
        assert response.status_code == status, response.text
        return response

    async def read(self, path: str = "", status: int = 200) -> Reader:
        """Fetch a page, and parse it."""
        return Reader((await self.get(path, status)).text)

    async def post(
        self, path: str, fields: list[tuple[str, str]], status: int = 303, **options: Any
    ) -> Response:
        response = await self.client.post(
            path,
            content=urlencode(fields),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                **options.pop("headers", {}),
            },
            **options,
        )
        assert response.status_code == status, response.text
        return response

    async def send(
        self, page: Reader, button: tuple[str, str], status: int = 303, **fields: str | list[str]
    ) -> Response:
        """Send the form with this button, with these fields and the hidden ones."""
        form = next(form for form in page.forms if button in form.buttons)
        given = [(key, value) for key, value in form.fields if key not in fields]
        for key, value in fields.items():
            given += [(key, one) for one in ([value] if isinstance(value, str) else value)]
        return await self.post(form.action, [*given, button], status)

    async def token(self) -> tuple[str, str]:
        """The field that proves that the dashboard has made a form."""
        await self.get("queues")
        return "csrf", self.client.cookies["oban_csrf"]
