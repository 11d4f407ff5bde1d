"""`Worker`: a class that processes jobs, as a base class or a mixin."""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from sqlalchemy import event
from sqlalchemy.orm import DeclarativeMeta, Mapped

from ..enqueue.enqueue import Conn, enqueue_by_name
from ..models import Job
from ..models.json_types import is_mapped
from . import features, model_worker
from .backoff import jittery_clamped
from .declaration import Declaration, declared, undeclared
from .hooks import method_hooks
from .lost_keywords import explained, refuse_lost
from .model_worker import RowOptions, class_or_row
from .option import options_of
from .options import JobOptions, OnChangeOptions, WorkerOptions
from .registry import register, resolve
from .sessions import check_session
from .timeout import check_timeout


class ClassOptions(WorkerOptions, RowOptions, OnChangeOptions, total=False):
    """The options of a worker that is a class: the keywords of `Worker` and of `@worker`."""


CLASS_OPTIONS = options_of(ClassOptions)


class Worker:
    """The base class of workers. Each instance processes one job::

        class WelcomeEmail(Worker, queue="mailers", max_attempts=5):
            async def process(self, job: Job) -> object: ...

    Each attempt builds an instance without arguments and calls `process(job)`: a coroutine
    function on the event loop, a plain function in a thread. Its result completes the job, unless
    it is `Cancel`, `Snooze` or `Record`. An error is recorded on the job, which is tried again
    after `backoff(job)` seconds while attempts are left.

    Keywords of the class are its options, such as the defaults of its jobs. A subclass inherits
    most of them. A class without `process` is no worker: it only passes on its options. The page
    docs/reference/options.md has a table of all options.

    `process(self, job, session)` gets an `AsyncSession`, or a `Session` if it is a plain function.
    The transaction of the session begins with its first use, and commits together with the
    completion of the job. So the changes are made once or not at all, however often the job runs.
    `process` must not commit the session. An exception rolls the transaction back. After a
    deadlock or a serialization failure `process` is called again at once. The session of a plain
    function has a connection of its thread, outside of the engine's pool.

    `timeout` is an option, or a method `timeout(self, job)` that runs on the event loop. An attempt
    that takes longer fails with `JobTimeoutError`. An async `process` is cancelled, and left behind
    if it has not stopped 5 seconds later. A thread can't be cancelled: it is left behind at once.
    A task or thread that is left behind takes a slot of its queue until it ends.

    A method `before(self, job)` runs before each `process`, on the same loop or in the same thread,
    within the timeout. If it returns a value other than `None`, this value is the result, and
    `process` does not run. A method `after(self, job, result)` runs when `process` has returned.
    Both may have a parameter `session` if `process` has one, and run in its transaction. If one of
    them raises, the attempt fails. The option `on_discard` names another worker: when a job is
    discarded, a job of that worker is enqueued.

    When a running job is cancelled, `job.cancelled()` turns true. With the option `interruptible`,
    the task of an async `process` is cancelled as well.

    Mapped instances in the arguments are passed as instances: loaded in the `session` if `process`
    takes one, otherwise detached. If the row of an instance does not exist any more, the option
    `missing` decides how the job goes on.

    A mapped class may be a worker, too::

        class Invoice(Worker, Base, queue="billing"):
            async def process(self, job: Job, session: AsyncSession) -> object: ...

    Each job belongs to a row: `await invoice.enqueue(conn=session)`. The loaded row processes the
    job, as `self`. `Invoice.jobs` has the jobs of a row. The option `lock` locks the row while its
    job runs.

    With `on_insert`, `on_update` and `on_delete`, sessions enqueue a job for each row that they
    change: of the worker itself, or of the model that `on=Model` names. The arguments of the job
    are `change` ("insert", "update" or "delete") and `row`, the instance. For a deleted row, they
    are `change` and `key`, the primary key. See docs/on_change.md.
    """

    __oban__: ClassVar[Declaration] = undeclared(CLASS_OPTIONS)

    if TYPE_CHECKING:
        jobs: Mapped[list[Job]]
        """The jobs of a row, in the order of their ids: a view-only relationship of a model."""

    def __init_subclass__(cls, **options: Unpack[ClassOptions]) -> None:
        refuse_lost(cls, options, CLASS_OPTIONS)
        given: dict[str, Any] = {**options}
        own = {name: given.pop(name) for name in CLASS_OPTIONS if name in given}
        with explained(cls, given, CLASS_OPTIONS):
            super().__init_subclass__(**given)  # another base may take keywords of its own
        declare(cls, own)

    @class_or_row
    def new(cls, args: Mapping[str, Any] | None = None, /, **options: Unpack[JobOptions]) -> Job:
        """Make a job with these arguments. It is not enqueued until you add it to a session.

        Invalid input raises a `ValueError` or `TypeError` that names the field and the value.
        """
        return declaration_of(cls).new_job(model_worker.arguments(cls, args), options)

    @class_or_row
    async def enqueue(
        cls,
        args: Mapping[str, Any] | None = None,
        /,
        *,
        conn: Conn | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Make a job and enqueue it in the transaction of `conn`.

        If `conn` is a session, the job is added to it, and has its `id` after the flush. Another
        connection inserts the job at once. Without `conn`, the instance named by the worker's
        option `oban` inserts the job in a transaction of its own. The errors are those of `new`,
        `TypeError` for a `conn` of another kind, and `InstanceNotFoundError`.
        """
        job = cls.new(args, **options)
        await enqueue_by_name(job, conn, declaration_of(cls).oban)
        return job

    def backoff(self, job: Job) -> float | timedelta:
        """Seconds until the next attempt of a failed job. Override this to choose other delays.

        The default is Oban's: 15 + 2^attempt seconds and a little jitter.
        """
        return jittery_clamped(job.attempt, job.max_attempts)


def declare(cls: type, given: Mapping[str, Any]) -> None:
    """Store the options on the class, and register the class if it can process jobs."""
    declaration = declared(
        cls,
        given,
        CLASS_OPTIONS,
        base=getattr(cls, "__oban__", None),
        own=vars(cls).get("__oban__"),
    )
    cls.__oban__ = declaration  # type: ignore[attr-defined]
    process = getattr(cls, "process", None)
    # DeclarativeMeta maps a class only after `__init_subclass__`.
    mapped_later = isinstance(cls, DeclarativeMeta) and not is_mapped(cls)
    if process is not None:
        takes_session = _check_signature(cls, process)
        if not mapped_later:
            _check_row(cls, declaration, takes_session, is_model=is_mapped(cls))
        backoff = getattr(cls, "backoff", None)
        timeout = _timeout_of(cls, given)
        hooks = method_hooks(cls, process, takes_session=takes_session)
        register(
            declaration, cls, process, backoff, timeout, hooks=hooks, takes_session=takes_session
        )
    if not mapped_later:
        _relate(cls, declaration, is_model=is_mapped(cls))


@event.listens_for(Worker, "after_mapper_constructed", propagate=True)
def _complete(mapper: Any, cls: type) -> None:
    """Complete the declaration of a class that was mapped after its declaration."""
    declaration: Declaration | None = vars(cls).get("__oban__")
    if declaration is not None:
        if hasattr(cls, "process"):
            takes_session = resolve(declaration.name).takes_session
            _check_row(cls, declaration, takes_session, is_model=True)
        _relate(cls, declaration, is_model=True)


def _relate(cls: type, declaration: Declaration, *, is_model: bool) -> None:
    """Add the relationship `jobs` to a model, and call the listeners of features."""
    if is_model and hasattr(cls, "process"):
        model_worker.relate(cls)
    features.tell(cls, declaration, is_model=is_model)


def declaration_of(target: Any) -> Declaration:
    """The declaration of a worker class, or of the class of a row; `TypeError` if it has none."""
    cls = target if isinstance(target, type) else type(target)
    if not hasattr(cls, "process"):
        raise TypeError(f"{cls.__qualname__} has no method process(self, job), so it has no jobs")
    declaration: Declaration | None = vars(cls).get("__oban__")
    if declaration is None:
        raise TypeError(
            f"{cls.__qualname__} is not a worker of its own: decorate it with @worker()"
        )
    return declaration


def _timeout_of(cls: type, changes: Mapping[str, Any]) -> Callable[..., Any] | None:
    method = getattr(cls, "timeout", None)
    # Any other attribute of that name, for example a column of a model, is the user's own.
    if not inspect.isroutine(method):
        return None
    if changes.get("timeout") is not None:
        raise TypeError(
            f"{cls.__qualname__} has a method timeout(self, job) and the option timeout: keep one"
        )
    check_timeout(cls.__qualname__, method, object(), object())
    return method


def _check_row(cls: type, declaration: Declaration, takes_session: bool, *, is_model: bool) -> None:
    """`TypeError` for options and methods that a model, or another class, can't have."""
    name = cls.__qualname__
    if not is_model:
        if declaration.lock is not None and "__abstract__" not in vars(cls):
            raise TypeError(f"{name} is not a model, so it has no row to lock: leave lock= out")
        return
    if inspect.isroutine(getattr(cls, "timeout", None)):
        raise TypeError(
            f"{name} has a method timeout(self, job), but its row is loaded within the time: use"
            " the option timeout=, which may be a function of the job"
        )
    if declaration.lock is not None and not takes_session:
        raise TypeError(
            f"{name} has lock={declaration.lock!r}, but the lock ends with the transaction: define"
            " process(self, job, session)"
        )
    if declaration.cron is not None:
        raise TypeError(f"{name} is a model, and a cron entry has no row: use a worker of its own")
    if declaration.missing == "none":
        raise TypeError(f"{name} is a model, and can't run without its row: missing='cancel'")


def _check_signature(cls: type, process: Any) -> bool:
    """Check the signature of `process`. Returns whether it takes a session."""
    signature = inspect.signature(process)
    takes_session = "session" in signature.parameters
    try:
        signature.bind(object(), object(), **({"session": object()} if takes_session else {}))
    except TypeError:
        raise TypeError(
            f"{cls.__qualname__}.process{signature} can't be called with a job:"
            " define it as process(self, job), or as process(self, job, session)"
        ) from None
    if takes_session:
        check_session(f"{cls.__qualname__}.process", process, "session")
    return takes_session
