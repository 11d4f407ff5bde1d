"""The command line, `oban-sqla` (extra `cli`)."""

import sys


def main() -> None:
    """Run the command line. Without the extra, print how to install it, and exit with 2."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print("the command line needs the extra: pip install 'oban-sqla[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="oban-sqla")
