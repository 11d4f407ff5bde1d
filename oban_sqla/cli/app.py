"""The Typer application with all commands."""

import inspect
import re
from typing import Annotated

import typer

from .. import __version__
from . import bench, config, cron, doctor, jobs, queues, run, schema, status, top, web, workflows

app = typer.Typer(
    help="Background jobs in your SQLAlchemy unit of work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=run.StartCommand)(run.start)
app.command("status")(status.show_status)
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("web")(web.web)
app.command("bench")(bench.bench)
app.add_typer(queues.app, name="queues")
app.add_typer(jobs.app, name="jobs")
app.add_typer(workflows.app, name="workflows")
app.add_typer(cron.app, name="cron")
app.add_typer(schema.app, name="schema")
app.add_typer(config.app, name="config")

# Typer keeps the line breaks of docstrings, but a help text wraps to the width of the terminal.
for group in (app, *(added.typer_instance for added in app.registered_groups)):
    for command in group.registered_commands if group else ():
        text = inspect.cleandoc(command.help or inspect.getdoc(command.callback) or "")
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda wanted: wanted and _say_version(),
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None: ...


def _say_version() -> None:
    typer.echo(f"oban-sqla {__version__}")
    raise typer.Exit
