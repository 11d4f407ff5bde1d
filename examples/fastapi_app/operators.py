"""Check who may use the dashboard."""

from secrets import compare_digest

from fastapi import Request, Response
from fastapi.security import HTTPBasic

from examples.fastapi_app.settings import settings
from oban_sqla.web import RIGHTS, Access

basic = HTTPBasic(auto_error=False)


async def operator(request: Request) -> Access | Response:
    """Give all rights to a user who knows the password. The log names the user."""
    given = await basic(request)
    password = settings.operator_password
    if given and password and compare_digest(given.password.encode(), password.encode()):
        return Access(RIGHTS, given.username)
    return Response(status_code=401, headers={"WWW-Authenticate": "Basic"})
