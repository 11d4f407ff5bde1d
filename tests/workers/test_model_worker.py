"""Mapped classes as workers: their jobs and declarations."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

from oban_sqla import Job, Worker, job, worker
from tests.worker_models import Account, Export, Invoice, Parcel, Reminder


def declare(**options: Any) -> Any:
    class Base(DeclarativeBase): ...

    class Model(Worker, Base, name="rows.model", **options):
        __tablename__ = "models"
        id: Mapped[int] = mapped_column(primary_key=True)

        async def process(self, job: Job) -> None: ...

    return Model


def test_a_job_refers_to_the_row_that_made_it() -> None:
    job = Invoice(id=1).new({"add": 5}, priority=2)
    assert job.worker == "tests.worker_models.Invoice"
    assert job.queue == "billing"
    assert job.priority == 2
    # The flush sets the key in the arguments.
    reference = {"$model": "tests.worker_models.Invoice", "$key": None}
    assert job.args == {"self": reference, "add": 5}


def test_a_subclass_has_jobs_of_its_own() -> None:
    job = Reminder(id=1).new()
    assert (job.worker, job.queue) == ("tests.worker_models.Reminder", "mailers")
    assert job.args["self"]["$model"] == "tests.worker_models.Invoice"


def test_decorated_and_dataclass_models_have_jobs_of_their_rows() -> None:
    assert Account().new().args["self"]["$model"] == "tests.worker_models.Account"
    assert Parcel(weight=1).new().args["self"]["$model"] == "tests.worker_models.Parcel"
    assert repr(Parcel(weight=1)) == "Parcel(id=None, weight=1)"


@pytest.mark.parametrize("model", [Invoice, Account, Export])
async def test_the_class_itself_makes_no_job(model: Any) -> None:
    with pytest.raises(
        TypeError, match=r"is a model: each of its jobs belongs to a row, so call new\(\)"
    ):
        model.new()
    with pytest.raises(TypeError, match="is a model"):
        await model.enqueue()


def test_an_instance_of_a_plain_worker_has_the_same_methods() -> None:
    class Plain(Worker, name="rows.plain"):
        async def process(self, job: Job) -> None: ...

    assert Plain().new({"a": 1}).args == {"a": 1}


def test_the_row_is_no_argument() -> None:
    with pytest.raises(ValueError, match=r"args\['self'\] is the row itself"):
        Invoice(id=1).new({"self": 1})
    with pytest.raises(TypeError, match="args must be a mapping"):
        Invoice(id=1).new([1])  # type: ignore[arg-type]


def test_a_class_mapped_later_is_a_model_worker() -> None:
    @registry().mapped
    class Late(Worker, name="rows.late"):
        __tablename__ = "late"
        id: Mapped[int] = mapped_column(primary_key=True)

        async def process(self, job: Job) -> None: ...

    with pytest.raises(TypeError, match="Late is a model"):
        Late.new()


def test_an_attribute_jobs_of_the_model_is_kept() -> None:
    class Base(DeclarativeBase): ...

    class Model(Worker, Base, name="rows.own"):
        __tablename__ = "models"
        id: Mapped[int] = mapped_column(primary_key=True)
        jobs: Mapped[int]  # type: ignore[assignment]

        async def process(self, job: Job) -> None: ...

    assert Model(jobs=3).jobs == 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lock": "update"}, r"the lock ends with the transaction: define process\(self, job, ses"),
        ({"cron": "* * * * *"}, "a cron entry has no row"),
        ({"missing": "none"}, "can't run without its row"),
    ],
)
def test_options_that_no_model_can_have_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        declare(**options)


def test_an_invalid_lock_is_refused() -> None:
    with pytest.raises(ValueError, match="lock must be 'update' or 'skip', not 'share'"):
        declare(lock="share")


def test_a_lock_needs_a_model() -> None:
    with pytest.raises(TypeError, match=r"Plain is not a model, so it has no row to lock"):

        class Plain(Worker, lock="update"):
            async def process(self, job: Job, session: AsyncSession) -> None: ...


def test_a_function_can_not_have_a_lock() -> None:
    with pytest.raises(TypeError, match="locked is not a model, so it has no row to lock"):

        @job(name="rows.locked", lock="update")  # type: ignore[call-overload]
        def locked() -> None: ...


def test_a_misspelt_option_gets_a_suggestion() -> None:
    with pytest.raises(TypeError, match=r"Odd has no option 'on_updat'; did you mean 'on_update'"):

        @worker(name="rows.odd", on_updat=True)  # type: ignore[call-arg]
        class Odd:
            async def process(self, job: Job) -> None: ...


def test_a_method_timeout_is_refused() -> None:
    class Base(DeclarativeBase): ...

    with pytest.raises(TypeError, match="its row is loaded within the time: use the option"):

        class Model(Worker, Base):
            __tablename__ = "models"
            id: Mapped[int] = mapped_column(primary_key=True)

            def timeout(self, job: Job) -> float:
                return 1.0

            async def process(self, job: Job) -> None: ...
