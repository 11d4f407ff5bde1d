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
def test_the_class_of_the_error_decides(
    worker: type[Worker], error: BaseException, expected: str
) -> None:
    assert verdict(worker.__oban__, error) == expected


def test_the_errors_inside_a_listed_group_are_ignored() -> None:
    @job(discard_on=ExceptionGroup)
    def gather() -> None: ...

    assert verdict(gather.__oban__, ExceptionGroup("all", [ValueError()])) == "discard"


def test_a_listed_error_is_no_database_conflict() -> None:
    @job(retry_on=EOFError, discard_on=JobTimeoutError)
    def hurry() -> None: ...

    assert verdict(hurry.__oban__, JobTimeoutError("too long")) == "discard"


def test_a_listed_retry_precedes_a_listed_base_class() -> None:
    @job(discard_on=Exception)
    def ask() -> None: ...

    assert verdict(ask.__oban__, RetryAfter(5)) == "retry"


def test_a_subclass_of_the_worker_adds_to_its_lists() -> None:
    class Sub(Timid, retry_on=FileExistsError):
        pass

    assert verdict(Sub.__oban__, FileExistsError()) == "retry"
    assert verdict(Sub.__oban__, PermissionError()) == "discard"


@pytest.mark.parametrize("base", [Worker, Timid])
def test_a_class_listed_twice_is_refused(base: Any) -> None:
    with pytest.raises(ValueError, match="names OSError in retry_on and discard_on: keep one"):

        class Torn(base, retry_on=OSError, discard_on=[OSError]):
            def process(self, job: Job) -> None: ...
