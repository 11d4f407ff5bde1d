"""`oban-sqla doctor`: find out why jobs don't run, and print remedies."""

import typer

from ..doctor.examination import examine
from ..doctor.finding import Finding
from ..migrations import LATEST
from ..runtime.database import Database
from .configuration import ask, configured
from .options import Config, Dsn, Json, Prefix
from .output import document, plain

COLOURS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "problem": typer.colors.RED}
WIDTH = max(map(len, COLOURS))


def doctor(
    dsn: Dsn = None, prefix: Prefix = None, path: Config = None, as_document: Json = False
) -> None:
    """Check the database and the nodes, and name a remedy for each problem.

    The exit code is 1 if there is a problem.
    """
    settings = configured(path, dsn=dsn, prefix=prefix)

    async def findings(database: Database) -> list[Finding]:
        return [one async for one in examine(database, settings.config, latest=LATEST)]

    found = ask(settings, findings)
    problems = sum(finding.level == "problem" for finding in found)
    if as_document:
        document({"ok": problems == 0, "findings": found})
    else:
        for finding in found:
            _tell(finding)
        few = {0: "no problem", 1: "1 problem"}.get(problems, f"{problems} problems")
        typer.echo(f"\n{few} found")
    raise typer.Exit(1 if problems else 0)


def _tell(finding: Finding) -> None:
    level = typer.style(f"{finding.level:<{WIDTH}}", fg=COLOURS[finding.level])
    typer.echo(f"{level}  {finding.check}: {plain(finding.text)}")
    if finding.remedy is not None:
        typer.echo(f"{'':{WIDTH}}  -> {plain(finding.remedy)}")
