"""The options that commands share."""

from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The settings file. Default: oban.toml or pyproject.toml in this directory.",
    ),
]
Dsn = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The database: postgresql://user:password@host/name; else the setting `dsn`, or"
        " OBAN_DSN.",
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="SCHEMA", help="The PostgreSQL schema of the tables."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="A module with workers; may be repeated."),
]
Name = Annotated[
    str | None, typer.Option(help="The name of the instance. Nodes of one name work together.")
]
Node = Annotated[str | None, typer.Option(help="Only this node. Default: all nodes.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
