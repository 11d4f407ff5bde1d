"""The exceptions of oban_sqla. Bad input raises a plain `ValueError` or `TypeError` instead."""

from collections.abc import Iterable

from sqlalchemy.exc import SQLAlchemyError

from .dsn import hide_passwords


class ObanError(SQLAlchemyError):
    """The base of our errors: something is not in the state that a call needs."""

    __module__ = "oban_sqla"


class SchemaMissingError(ObanError):
    """The database lacks the tables of oban_sqla. The message says how to install them."""

    __module__ = "oban_sqla"


class PrivilegeMissingError(ObanError):
    """The role of the connection lacks a privilege. The message says how to grant it."""

    __module__ = "oban_sqla"


class SchemaVersionError(ObanError):
    """The database has a version of the schema that this oban_sqla does not know."""

    __module__ = "oban_sqla"


class InstanceNotFoundError(ObanError):
    """This process has no `Oban` of that name, and no `conn` was passed."""

    __module__ = "oban_sqla"


class JobNotFoundError(ObanError):
    """There is no job with that id, or the current task processes no job."""

    __module__ = "oban_sqla"


class QueueNotFoundError(ObanError):
    """The queue does not run on this node."""

    __module__ = "oban_sqla"


class UnknownWorkerError(ObanError):
    """A job names a worker that this process has not imported."""

    __module__ = "oban_sqla"


class UnknownModelError(ObanError):
    """The arguments of a job refer to a mapped class that this process has not imported."""

    __module__ = "oban_sqla"


class StandbyError(ObanError):
    """The server is a standby, where jobs can't run. Connect to the primary."""

    __module__ = "oban_sqla"


class UnreadableJobError(ObanError):
    """A job has a value that Python can't represent, or JSON that can't be parsed.

    A claimed job is discarded with this error; `oban.wait` raises it.
    """

    __module__ = "oban_sqla"

    def __init__(self, id: int, column: str) -> None:
        super().__init__(
            f"the column {column} of job {id} can't be read; correct the value in oban_jobs, and"
            " retry the job"
        )


class RowMissingError(ObanError):
    """A job refers to a row that does not exist any more, and its worker has `missing="raise"`."""

    __module__ = "oban_sqla"


class JobTimeoutError(ObanError):
    """An attempt ran longer than its worker's `timeout`."""

    __module__ = "oban_sqla"


class ConfigError(ValueError):
    """The settings have mistakes: `complaints` has a setting and a sentence for each of them."""

    __module__ = "oban_sqla"

    def __init__(self, complaints: Iterable[tuple[str, str]]) -> None:
        shown = ((setting, hide_passwords(complaint)) for setting, complaint in complaints)
        self.complaints = tuple(dict.fromkeys(shown))
        super().__init__("; ".join(complaint for _, complaint in self.complaints))


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of a driver's error, also inside an error of SQLAlchemy; '' if it has none."""
    original: object = getattr(error, "orig", None) or error
    # psycopg2 names the attribute `pgcode`.
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""
