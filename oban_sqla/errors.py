"""The errors of state, and that of settings. Bad input is a plain `ValueError` or `TypeError`."""

from collections.abc import Iterable

from sqlalchemy.exc import SQLAlchemyError

from .dsn import hide_passwords


class ObanError(SQLAlchemyError):
    """Something is not in the state that the call needs."""

    __module__ = "oban_sqla"


class SchemaMissingError(ObanError):
    """The tables of oban_sqla are not in the database; the message says how to install them."""

    __module__ = "oban_sqla"


class PrivilegeMissingError(ObanError):
    """The role of the connection may not do what is wanted; the message says how to grant it."""

    __module__ = "oban_sqla"


class SchemaVersionError(ObanError):
    """The database has a version of the schema that this oban_sqla does not know."""

    __module__ = "oban_sqla"


class InstanceNotFoundError(ObanError):
    """No `Oban` of that name was built in this process, and no `conn` was given."""

    __module__ = "oban_sqla"


class JobNotFoundError(ObanError):
    """There is no job with that id, or none that is being processed."""

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
    """The server is a standby, which only copies another server: the primary has the nodes."""

    __module__ = "oban_sqla"


class UnreadableJobError(ObanError):
    """A claimed job has a value that Python can't hold, or JSON that can't be parsed."""

    __module__ = "oban_sqla"

    def __init__(self, id: int, column: str) -> None:
        super().__init__(
            f"the column {column} of job {id} can't be read, so the job is discarded; correct the"
            " value in oban_jobs, and retry the job"
        )


class RowMissingError(ObanError):
    """The arguments of a job refer to a row that is gone, and its worker has `missing="raise"`."""

    __module__ = "oban_sqla"


class JobTimeoutError(ObanError):
    """An attempt ran longer than its worker's `timeout`."""

    __module__ = "oban_sqla"


class ConfigError(ValueError):
    """All that is wrong with the settings: `complaints` are pairs of a setting and a sentence."""

    __module__ = "oban_sqla"

    def __init__(self, complaints: Iterable[tuple[str, str]]) -> None:
        shown = ((setting, hide_passwords(complaint)) for setting, complaint in complaints)
        self.complaints = tuple(dict.fromkeys(shown))
        super().__init__("; ".join(complaint for _, complaint in self.complaints))


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error of a driver, or of SQLAlchemy's around it; '' if it has none."""
    original: object = getattr(error, "orig", None) or error
    # psycopg2 has another word for it.
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""
