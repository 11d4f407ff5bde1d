"""`Examination`, a part of `Oban`: run all checks of the doctor."""

from collections.abc import AsyncIterator

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from ..config import Config
from ..dsn import hide_passwords
from ..errors import PrivilegeMissingError, SchemaMissingError, StandbyError
from ..runtime.database import Database
from ..runtime.presence import presence
from ..statements.counts import EXACT, counts
from .finding import Finding
from .limit_check import LimitCheck
from .node_checks import NodeChecks
from .retention_check import RetentionCheck
from .server_checks import ServerChecks


async def examine(database: Database, config: Config, *, latest: int) -> AsyncIterator[Finding]:
    """Run all checks; `latest` is the version that the schema needs.

    If the database can't be reached, an error is raised. If a single check fails, that is a
    problem.
    """
    server = ServerChecks(database, config, latest)
    try:
        await database.verify()
        found = await presence(database)
        jobs = await database.fetch(counts(prefix=found.schema, exact=EXACT))
    except (SchemaMissingError, PrivilegeMissingError) as error:
        missing, _, remedy = str(error).partition(": ")
        yield Finding("schema", "problem", missing, remedy)
        checks = server.of_server
    except StandbyError as error:
        text, _, remedy = str(error).partition("; ")
        yield Finding("server", "problem", text, remedy)
        checks = {"schema": server.of_tables["schema"]}
    else:
        nodes = NodeChecks(database, found, jobs, config.rescue_after)
        retention = RetentionCheck(database, found, config.retention)
        checks = {
            **server.of_tables,
            **server.of_server,
            **nodes.all,
            "retention": retention.check,
            "limits": LimitCheck(database, found).check,
        }
    for name, check in checks.items():
        try:
            async for finding in check.findings(name):
                yield finding
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            cause = str(getattr(error, "orig", None) or error).partition("\n")[0]
            yield Finding(name, "problem", f"the check failed: {hide_passwords(cause)}")


class Examination:
    """Examine the database and the nodes."""

    _config: Config
    _database: Database

    async def examine(self, *, latest: int) -> list[Finding]:
        """The findings of `oban-sqla doctor`; `latest` is the version that the schema needs."""
        return [one async for one in examine(self._database, self._config, latest=latest)]
