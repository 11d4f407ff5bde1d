"""The options of workers and of single jobs. Each is declared once, in a typed dict.

Class keywords, decorators, checks, inheritance and the reference page use these declarations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, TypedDict, get_args

from ..instances import DEFAULT_NAME
from ..limiting import Limit, Rate
from ..models import Unique, validation
from ..models.chain import Chain, chain_option
from ..models.deadline import Deadline, deadline_option
from ..models.unique import unique_option
from .cron import parse
from .error_classes import ErrorClasses, error_classes
from .limit_options import limit_option, rate_option
from .on_discard import AnyWorker, on_discard_option
from .option import Option, flag
from .timeout import Timeout, timeout_option

Missing = Literal["cancel", "raise", "none"]
"""How to handle a job whose arguments refer to a row that does not exist any more."""


def _instance_name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"oban must be the name of an instance, not {validation.show(value)}")
    return value


def _aliases(value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"aliases must be a list of names, not {validation.show(value)}")
    return tuple(validation.worker_name(one) for one in value)


def _missing(value: object) -> Missing:
    policies: tuple[Missing, ...] = get_args(Missing)
    for policy in policies:
        if value == policy:
            return policy
    choices = ", ".join(map(repr, policies))
    raise ValueError(f"missing must be one of {choices}, not {validation.show(value)}")


class SharedOptions(TypedDict, total=False):
    """Options that a worker sets for all its jobs, and that a single job may override."""

    queue: Annotated[
        str, Option("The queue that the job waits in.", validation.queue_name, "default")
    ]
    priority: Annotated[int, Option("From 0 (runs first) to 9.", validation.priority, default=0)]
    max_attempts: Annotated[
        int,
        Option(
            "How often the job is tried, the first time included: 1 to 32767. After the last"
            " failure it is `discarded`.",
            validation.max_attempts,
            default=20,
        ),
    ]
    tags: Annotated[
        Iterable[str],
        Option(
            "Words by which you find jobs; stored in lower case.", validation.tag_list, default=()
        ),
    ]
    meta: Annotated[
        Mapping[str, Any],
        Option(
            "Any JSON object, for your own notes about the job.",
            partial(validation.json_object, "meta"),
            default={},
        ),
    ]
    deadline: Annotated[
        Deadline,
        Option(
            "If the first attempt has not begun by this time, the job is `cancelled`: a `datetime`,"
            " or a `timedelta` or seconds after the job is due.",
            deadline_option,
        ),
    ]
    unique: Annotated[
        Unique | bool,
        Option(
            "When the job is a duplicate of an existing job. A duplicate is not enqueued."
            " `True` stands for `Unique()`.",
            unique_option,
        ),
    ]


class JobOptions(SharedOptions, total=False):
    """The options of a single job."""

    schedule_in: Annotated[
        timedelta | float,
        Option("A delay from now, by the client's clock: a `timedelta` or seconds."),
    ]
    scheduled_at: Annotated[
        datetime, Option("When the job is due. A naive `datetime` is taken as UTC.")
    ]


class WorkerOptions(SharedOptions, total=False):
    """The options of every worker, whether it is a class or a function."""

    chain: Annotated[
        Chain | str | Iterable[str] | bool | None,
        Option(
            "Which jobs run strictly one after the other: those with equal values of an argument,"
            " given by its name, or of several; `True`: all jobs of the worker. `Chain` says more.",
            chain_option,
        ),
    ]
    name: Annotated[
        str | None,
        Option(
            "The name of the worker. Jobs store it, and other processes find the worker by it. The"
            " default is `module.qualname`.",
            inherited=False,
        ),
    ]
    oban: Annotated[
        str | None,
        Option(
            "The name of the instance that `enqueue` uses without `conn`.",
            _instance_name,
            DEFAULT_NAME,
        ),
    ]
    aliases: Annotated[
        Iterable[str] | None,
        Option(
            "Former names of the worker. The worker also runs jobs that store one of them.",
            _aliases,
            default=(),
            inherited=False,
        ),
    ]
    cron: Annotated[
        str | Mapping[str, Any] | None,
        # If a subclass inherited the entry, each tick would enqueue two jobs.
        Option("The times at which jobs are enqueued, as in cron.", parse, inherited=False),
    ]
    limit: Annotated[
        Limit | None,
        Option(
            "How many jobs of the worker, or of one key, run at once over all nodes:"
            ' `Limit(2, by="account_id")`.',
            limit_option,
        ),
    ]
    rate: Annotated[
        Rate | None,
        Option(
            "How many jobs of the worker, or of one key, start in a period over all nodes:"
            " `Rate(14, per=1)`.",
            rate_option,
        ),
    ]
    timeout: Annotated[
        Timeout | None,
        Option(
            "How long an attempt may take: seconds, a `timedelta`, or a function that returns"
            " either for a job. A longer attempt fails with `JobTimeoutError`.",
            timeout_option,
        ),
    ]
    retry_on: Annotated[
        ErrorClasses | None,
        Option(
            "A class of errors, or several: a job that fails with one is tried again. Other errors"
            " discard the job at once, except errors of SQLAlchemy and of this library.",
            error_classes("retry_on"),
            default=(),
        ),
    ]
    discard_on: Annotated[
        ErrorClasses | None,
        Option(
            "A class of errors, or several: a job that fails with one is `discarded` at once.",
            error_classes("discard_on"),
            default=(),
        ),
    ]
    cancel_on: Annotated[
        ErrorClasses | None,
        Option(
            "A class of errors, or several: a job that fails with one is `cancelled`.",
            error_classes("cancel_on"),
            default=(),
        ),
    ]
    on_discard: Annotated[
        AnyWorker | None,
        Option(
            "Another worker. When a job is `discarded`, a job of that worker is enqueued in the"
            " same transaction. Its argument `job_id` is the id of the discarded job.",
            on_discard_option,
        ),
    ]
    interruptible: Annotated[
        bool | None,
        Option(
            "Whether cancelling a job that runs cancels the task of its async `process`.",
            flag("interruptible"),
            default=False,
        ),
    ]
    missing: Annotated[
        Missing | None,
        Option(
            "How to handle a job whose arguments refer to a row that does not exist any more:"
            " `cancel` the job, `raise` `RowMissingError`, or run it with `None` (`none`).",
            _missing,
            default="cancel",
        ),
    ]


class OnChangeOptions(TypedDict, total=False):
    """The options of a worker that sessions enqueue when they change rows."""

    on: Annotated[
        type | None,
        Option(
            "The model whose changes enqueue jobs, if the worker is not a model itself.",
            inherited=False,
        ),
    ]
    on_insert: Annotated[
        bool,
        Option(
            "Enqueue a job for each row that is inserted.",
            flag("on_insert"),
            False,
            inherited=False,
        ),
    ]
    on_update: Annotated[
        bool | Sequence[str],
        Option(
            "Enqueue a job for each row that is updated: `True`, or the names of the attributes"
            " whose change counts.",
            default=False,
            inherited=False,
        ),
    ]
    on_delete: Annotated[
        bool,
        Option(
            "Enqueue a job for each row that is deleted.", flag("on_delete"), False, inherited=False
        ),
    ]
    when: Annotated[
        Callable[[Any], object] | None,
        Option(
            "A function of the row. If it returns a false value, no job is enqueued.",
            inherited=False,
        ),
    ]
