"""`oban-sqla config`: show the settings with their sources, and check them."""

from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..settings import Settings, load
from .configuration import ORIGIN
from .failures import told_in_one_line, warn
from .modules import import_all
from .options import Config, Json
from .output import as_json, document, table

app = typer.Typer(help="Show and check the settings.", no_args_is_help=True)

# The settings that `start` needs beside a database.
NEEDED = ("queues", "imports")


@app.callback()
def group() -> None: ...


@app.command("check")
def check_config(
    path: Config = None,
    imports: Annotated[bool, typer.Option(help="Also import the modules with workers.")] = True,
    as_document: Json = False,
) -> None:
    """Show every setting and where it comes from, and report wrong settings."""
    settings: Settings | None = None
    errors: list[str] = []
    with told_in_one_line():
        try:
            settings = load(path, origin=ORIGIN)
        except ConfigError as error:
            errors = [complaint for _, complaint in error.complaints]
    if settings is not None and imports:
        errors = list(import_all(settings.imports))
        try:
            settings.database()
        except ConfigError as error:
            errors += [complaint for _, complaint in error.complaints]
    notes = [] if settings is None else _notes(settings)
    if as_document:
        document({"ok": not errors, "settings": _found(settings), "errors": errors, "notes": notes})
    else:
        if settings is not None:
            table(
                {"setting": "left", "from": "left", "value": "left"},
                [(one["name"], one["source"], as_json(one["value"])) for one in _found(settings)],
            )
        for note in notes:
            typer.echo(f"note: {note}")
        for complaint in errors:
            warn(complaint)
    raise typer.Exit(1 if errors else 0)


def _found(settings: Settings | None) -> list[dict[str, Any]]:
    if settings is None:
        return []
    return [
        {"name": one.name, "value": one.shown, "source": one.source}
        for one in settings.found.values()
    ]


def _notes(settings: Settings) -> list[str]:
    missing = [] if settings.names_database else ["dsn"]
    missing += [name for name in NEEDED if not settings.found[name].value]
    needs = [f"start needs {' and '.join(missing)}, on its command line"] if missing else []
    return [*settings.notes, *needs]
