"""Parse the forms of pages with the standard library."""

from urllib.parse import parse_qsl

from starlette.requests import Request

LONGEST = 1_000_000
"""Bytes of a form; a selection is a few thousand ids."""


class FormTooLargeError(ValueError):
    """A form is longer than `LONGEST`."""


class Form:
    """The fields of a form."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get(self, name: str, default: str = "") -> str:
        """The last value of a field."""
        return next((value for key, value in reversed(self._pairs) if key == name), default)

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return [value for key, value in self._pairs if key == name]


async def read_form(request: Request) -> Form:
    """The form in the body of a request; `FormTooLargeError` for a body that is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise FormTooLargeError
    text = body.decode("utf-8", "replace")
    return Form(parse_qsl(text, keep_blank_values=True))
