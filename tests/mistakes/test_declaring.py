"""Mistakes with workers: each message names the remedy."""

import re
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import Job, Worker, job, worker


class Mailer(Worker, name="mistakes.Mailer"):
    async def process(self, job: Job) -> None: ...


def fails(kind: type[Exception], message: str) -> Any:
    return pytest.raises(kind, match=re.escape(message))


class TestDecorator:
    def test_a_decorator_without_parentheses_is_refused(self) -> None:
        with fails(TypeError, "write @worker() with parentheses above TestDecorator."):

            @worker  # type: ignore[call-arg, arg-type]
            class Bare:
                async def process(self, job: Job) -> None: ...

        with fails(TypeError, "write @job() with parentheses above TestDecorator."):

            @job  # type: ignore[call-overload]
            def bare() -> None: ...

    def test_the_decorator_for_classes_refuses_a_function(self) -> None:
        def report() -> None: ...

        with fails(TypeError, "@worker() is for classes; make TestDecorator.") as raised:
            worker()(report)  # type: ignore[arg-type]
        assert str(raised.value).endswith("report a job with @job()")

    def test_the_decorator_for_functions_refuses_a_class(self) -> None:
        with fails(TypeError, "Mailer a worker with @worker(), or inherit from Worker"):
            job(name="mistakes.other")(Mailer)


class TestProcess:
    def test_a_process_without_a_job_is_refused(self) -> None:
        with fails(TypeError, "define it as process(self, job), or as process(self, job, session)"):

            class Forgetful(Worker, name="mistakes.Forgetful"):
                async def process(self) -> None: ...

    def test_a_method_of_another_name_is_refused(self) -> None:
        class Performer(Worker, name="mistakes.Performer"):
            async def perform(self, job: Job) -> None: ...

        with fails(TypeError, "Performer has no method process(self, job), so it has no jobs"):
            Performer.new()

    def test_an_async_process_with_a_sync_session_is_refused(self) -> None:
        with fails(TypeError, "is async, so its session is AsyncSession, not Session"):

            class Mixed(Worker, name="mistakes.Mixed"):
                async def process(self, job: Job, session: Session) -> None: ...

    def test_a_process_with_a_yield_is_refused(self) -> None:
        with fails(TypeError, "contains a yield, so a job would not run it"):

            class Lazy(Worker, name="mistakes.Lazy"):
                def process(self, job: Job) -> Any:
                    yield 1


@pytest.mark.parametrize("asked", [False, True])
def test_a_session_parameter_in_the_wrong_place_is_refused(asked: bool) -> None:
    async def build(month: str, session: AsyncSession) -> None: ...

    message = "has a parameter 'session' for a session, which no job can hold: make it the first"
    with fails(TypeError, message):
        job(name="mistakes.build", session=asked)(build)  # type: ignore[call-overload]


def test_two_workers_of_one_name_are_refused() -> None:
    with fails(ValueError, "'mistakes.Mailer' is taken by") as raised:

        class Other(Worker, name="mistakes.Mailer"):
            async def process(self, job: Job) -> None: ...

    assert str(raised.value).endswith("another name with name='...'")


def test_a_misspelt_option_of_the_class_gets_a_suggestion() -> None:
    with fails(TypeError, "Misspelt has no option 'queu'; did you mean 'queue'?"):

        class Misspelt(Worker, queu="mailers"):  # type: ignore[call-arg]
            async def process(self, job: Job) -> None: ...
