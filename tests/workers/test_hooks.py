"""`before` and `after`: valid and invalid methods and functions."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban_sqla import Job, Worker, job, worker
from oban_sqla.workers.registry import resolve


async def process(self: Any, job: Job) -> None: ...


async def process_in_session(self: Any, job: Job, session: AsyncSession) -> None: ...


def process_plainly(self: Any, job: Job) -> None: ...


def process_plainly_in_session(self: Any, job: Job, session: Session) -> None: ...


async def with_session(self: Any, job: Job, session: AsyncSession) -> None: ...


def plain_with_session(self: Any, job: Job, session: Session) -> None: ...


async def of_another_session(self: Any, job: Job, session: Session) -> None: ...


def yielding(self: Any, job: Job) -> Any:
    yield


def without_job(self: Any) -> None: ...


def with_more(self: Any, job: Job, more: int) -> None: ...


REFUSED: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "no job": (process, without_job, "can't be called"),
    "an argument": (process, with_more, "parameters job, session, of which only the job"),
    "a generator": (process, yielding, "contains a yield"),
    "async": (process_plainly, process, "is async, but process is not"),
    "no session": (process, with_session, "process takes none"),
    "plain in an async session": (process_in_session, plain_with_session, "make it async"),
    "the other session": (process_in_session, of_another_session, "not Session"),
}


@pytest.mark.parametrize(("process", "before", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_hooks_are_refused_at_the_declaration(
    process: Callable[..., Any], before: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TypeError, match=rf"Refused\.before.*{message}"):
        type("Refused", (Worker,), {"process": process, "before": before})


@pytest.mark.parametrize(
    ("process", "after"),
    [
        (process, process_plainly),
        (process_in_session, with_session),
        (process_in_session, process_plainly),
        (process_plainly_in_session, plain_with_session),
        (process, staticmethod(lambda job, result: None)),
        (process, classmethod(lambda cls, job: None)),
    ],
)
def test_valid_hooks_are_accepted(process: Any, after: Any) -> None:
    taken = worker()(type("Taken", (), {"process": process, "after": after, "__module__": "m"}))
    assert resolve(taken.new({}).worker).hooks.after is not None


def test_a_column_with_the_name_of_a_hook_is_no_hook() -> None:
    class Base(DeclarativeBase): ...

    class Slot(Worker, Base, name="hooks.slot"):
        __tablename__ = "slots"
        id: Mapped[int] = mapped_column(primary_key=True)
        before: Mapped[int]
        after: Mapped[int]

        async def process(self, job: Job) -> None: ...

    assert (resolve("hooks.slot").hooks.before, resolve("hooks.slot").hooks.after) == (None, None)


def test_a_function_has_one_hook_of_each_kind() -> None:
    @job(name="hooks.one_of_each")
    def build() -> None: ...

    @build.before
    def announce(job: Job) -> None: ...

    with pytest.raises(TypeError, match="build has a function before already"):
        build.before(announce)
    with pytest.raises(TypeError, match=r"after .*tell.* can't be called"):

        @build.after
        def tell() -> None: ...
