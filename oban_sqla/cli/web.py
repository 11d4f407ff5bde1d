"""`oban-sqla web`: serve the dashboard without an application."""

import asyncio
from typing import Annotated

import typer

from ..oban import Oban
from ..settings import Settings
from .configuration import configured, database_of, location
from .failures import fail, told_in_one_line
from .modules import import_all
from .options import Config, Dsn, Imports, Name, Prefix

HOST = "127.0.0.1"
# Seconds in which the streams of open pages must end.
GRACE = 1


def web(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 4000,
    modules: Imports = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Serve the dashboard to this machine, until Ctrl-C.

    It listens on 127.0.0.1, and everybody on this machine may use it. To serve it to others, mount
    `oban_sqla.web.dashboard(oban, authorize=...)` in an application. Import your workers to see
    their cron entries.
    """
    settings = configured(path, imports=modules or None, dsn=dsn, prefix=prefix, name=name)
    for complaint in import_all(settings.imports):
        fail(complaint)
    with told_in_one_line():
        asyncio.run(_serve(settings, port))


async def _serve(settings: Settings, port: int) -> None:
    try:
        # Imported here, since all other commands work without the extra.
        import uvicorn

        from ..web import dashboard
    except ModuleNotFoundError as error:
        fail(f"{error}: the dashboard needs the extra: pip install 'oban-sqla[web]'")

    database, config = database_of(settings), settings.config
    oban = Oban(database.engine, prefix=config.prefix, name=config.name, timezone=config.timezone)
    typer.echo(f"http://localhost:{port}/ shows the {location(database.engine.url)}")
    server = uvicorn.Server(
        uvicorn.Config(
            dashboard(oban),
            host=HOST,
            port=port,
            lifespan="off",
            log_level="warning",
            # Never trust a proxy's headers: the guard admits only clients on this machine.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
    try:
        await server.serve()
    finally:
        await database.engine.dispose()
