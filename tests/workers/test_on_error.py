"""`retry_on`, `discard_on` and `cancel_on`: the closest listed class decides."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from oban_sqla import Job, JobTimeoutError, RetryAfter, Worker, job
from oban_sqla.workers.on_error import verdict


class Timid(Worker, discard_on=OSError, cancel_on=[LookupError, FileNotFoundError]):
    def process(self, job: Job) -> None: ...


class Choosy(Worker, retry_on=(ConnectionError, EOFError), cancel_on=LookupError):
    def process(self, job: Job) -> None: ...


lost = OperationalError("COMMIT", {}, Exception("the connection is lost"))


@pytest.mark.parametrize(
    ("worker", "error", "expected"),
    [
        (Timid, ValueError(), "retry"),
        (Timid, PermissionError(), "discard"),
        (Timid, FileNotFoundError(), "cancel"),
        (Timid, IndexError(), "cancel"),
        (Timid, KeyboardInterrupt(), "retry"),
        (Choosy, ConnectionResetError(), "retry"),
        (Choosy, EOFError(), "retry"),
        (Choosy, ValueError(), "discard"),
        (Choosy, KeyError(), "cancel"),
        (Choosy, KeyboardInterrupt(), "retry"),
        (Choosy, lost, "retry"),
        (Choosy, JobTimeoutError("too long"), "retry"),
        (Choosy, ExceptionGroup("all", [ValueError(), EOFError()]), "retry"),
        (Choosy, ExceptionGroup("all", [ValueError(), KeyError()]), "discard"),
        (Choosy, ExceptionGroup("all", [KeyError(), IndexError()]), "cancel"),
        (Timid, RetryAfter(5), "retry"),
    ],
)
def test_the_verdict(worker: type[Worker], error: BaseException, expected: str) -> None:
    assert verdict(worker.__oban__, error) == expected


def test_a_listed_group_is_not_looked_into() -> None:
    @job(discard_on=ExceptionGroup)
    def gather() -> None: ...

    assert verdict(gather.__oban__, ExceptionGroup("all", [ValueError()])) == "discard"


def test_an_error_that_is_listed_does_not_count_as_one_of_the_database() -> None:
    @job(retry_on=EOFError, discard_on=JobTimeoutError)
    def hurry() -> None: ...

    assert verdict(hurry.__oban__, JobTimeoutError("too long")) == "discard"


def test_a_retry_that_is_asked_for_goes_before_a_base_class() -> None:
    @job(discard_on=Exception)
    def ask() -> None: ...

    assert verdict(ask.__oban__, RetryAfter(5)) == "retry"


def test_a_subclass_of_the_worker_adds_to_its_lists() -> None:
    class Sub(Timid, retry_on=FileExistsError):
        pass

    assert verdict(Sub.__oban__, FileExistsError()) == "retry"
    assert verdict(Sub.__oban__, PermissionError()) == "discard"


@pytest.mark.parametrize("base", [Worker, Timid])
def test_a_class_is_listed_once(base: Any) -> None:
    with pytest.raises(ValueError, match="names OSError in retry_on and discard_on: keep one"):

        class Torn(base, retry_on=OSError, discard_on=[OSError]):
            def process(self, job: Job) -> None: ...
