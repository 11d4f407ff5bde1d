"""Classes that process jobs: `Worker` as a base class, `@worker` as a decorator."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import new_class
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from oban_sqla import InstanceNotFoundError, Job, JobState, Worker, worker
from oban_sqla.workers.registry import resolve

OPTIONS: dict[str, Any] = {
    "queue": "mailers",
    "priority": 3,
    "max_attempts": 5,
    "tags": ["Email"],
    "meta": {"team": "growth"},
}


class Inheriting(Worker, **OPTIONS):
    async def process(self, job: Job) -> None: ...


@worker(**OPTIONS)
class Decorated:
    async def process(self, job: Job) -> None: ...


both = pytest.mark.parametrize("declared", [Inheriting, Decorated])


@both
def test_a_job_has_the_options_of_its_worker(declared: Any) -> None:
    job = declared.new({"to": "x@y"})
    assert job.worker == f"{__name__}.{declared.__qualname__}"
    assert job.args == {"to": "x@y"}
    assert (job.queue, job.priority, job.max_attempts) == ("mailers", 3, 5)
    assert (job.tags, job.meta) == (["email"], {"team": "growth"})
    assert job.state is JobState.AVAILABLE


@both
def test_a_job_may_override_options(declared: Any) -> None:
    job = declared.new(queue="other", priority=0, max_attempts=1, tags=[], meta={})
    assert (job.args, job.queue, job.priority, job.max_attempts) == ({}, "other", 0, 1)
    assert (job.tags, job.meta) == ([], {})


@both
def test_a_job_may_be_scheduled(declared: Any) -> None:
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert declared.new(scheduled_at=at).scheduled_at == at
    for delay in (timedelta(hours=1), 3600, 3600.0):
        job = declared.new(schedule_in=delay)
        assert job.state is JobState.SCHEDULED
        wait = job.scheduled_at - datetime.now(UTC)
        assert timedelta(minutes=59) < wait <= timedelta(hours=1)


@both
async def test_enqueue_without_conn_needs_an_instance(declared: Any) -> None:
    with pytest.raises(InstanceNotFoundError, match="no Oban instance named 'Oban'"):
        await declared.enqueue({})


async def test_enqueue_may_name_an_instance() -> None:
    class Elsewhere(Worker, oban="billing"):
        def process(self, job: Job) -> None: ...

    with pytest.raises(InstanceNotFoundError, match="no Oban instance named 'billing'"):
        await Elsewhere.enqueue({})


def test_the_defaults_of_oban_apply() -> None:
    class Plain(Worker):
        def process(self, job: Job) -> None: ...

    job = Plain.new()
    assert (job.queue, job.priority, job.max_attempts) == ("default", 0, 20)
    assert (job.tags, job.meta) == ([], {})


def test_a_worker_is_registered_as_sync_or_async() -> None:
    class Sync(Worker):
        def process(self, job: Job) -> None: ...

    assert resolve(Inheriting.new().worker).asynchronous
    assert not resolve(Sync.new().worker).asynchronous


class TestInheritance:
    def test_a_subclass_has_the_options_and_a_name_of_its_own(self) -> None:
        class Reminder(Inheriting, queue="reminders"):
            pass

        job = Reminder.new()
        assert job.worker.endswith(".Reminder")
        assert (job.queue, job.priority, job.tags) == ("reminders", 3, ["email"])
        assert resolve(job.worker).create is Reminder

    def test_a_base_without_process_only_passes_its_options_on(self) -> None:
        class Mailer(Worker, queue="mailers", max_attempts=3):
            def deliver(self) -> None: ...

        class Invitation(Mailer, max_attempts=4):
            def process(self, job: Job) -> None: ...

        job = Invitation.new()
        assert (job.queue, job.max_attempts) == ("mailers", 4)
        with pytest.raises(TypeError, match=r"Mailer has no method process\(self, job\), so it"):
            Mailer.new()

    def test_a_given_name_is_not_inherited(self) -> None:
        class Named(Worker, name="app.Named"):
            def process(self, job: Job) -> None: ...

        class Further(Named):
            pass

        assert Named.new().worker == "app.Named"
        assert Further.new().worker.endswith(".Further")

    def test_a_subclass_of_a_decorated_class_has_to_be_decorated_itself(self) -> None:
        class Bare(Decorated):  # type: ignore[misc,valid-type]
            pass

        with pytest.raises(TypeError, match=r"Bare is not a worker of its own: decorate it with @"):
            Bare.new()

        @worker(priority=1)
        class Own(Decorated):  # type: ignore[misc,valid-type]
            pass

        assert (Own.new().queue, Own.new().priority) == ("mailers", 1)

    def test_options_of_keywords_and_decorator_are_merged(self) -> None:
        @worker(priority=2)
        class Both(Worker, queue="some", name="tests.Both"):
            def process(self, job: Job) -> None: ...

        assert (Both.new().queue, Both.new().priority, Both.new().worker) == (
            "some",
            2,
            "tests.Both",
        )

    def test_a_class_copied_by_a_decorator_keeps_its_options(self) -> None:
        @dataclass(slots=True)
        class Slotted(Worker, queue="some", name="tests.Slotted"):
            tries: int = 0

            def process(self, job: Job) -> None: ...

        assert (Slotted.new().queue, Slotted.new().worker) == ("some", "tests.Slotted")
        assert resolve("tests.Slotted").create is Slotted

    def test_a_worker_may_be_generic(self) -> None:
        item = TypeVar("item")

        class Import(Worker, Generic[item], queue="imports"):
            def process(self, job: Job) -> None: ...

        assert Import[int].new().queue == "imports"

    def test_keywords_of_other_bases_are_passed_on(self) -> None:
        class Coloured:
            colour = ""

            def __init_subclass__(cls, colour: str = "", **others: Any) -> None:
                super().__init_subclass__(**others)
                cls.colour = colour

        class Red(Worker, Coloured, queue="some", colour="red"):
            def process(self, job: Job) -> None: ...

        assert (Red.colour, Red.new().queue) == ("red", "some")

    def test_a_model_may_be_a_worker(self) -> None:
        class Base(DeclarativeBase):
            pass

        class Invoice(Worker, Base, queue="billing"):
            __tablename__ = "invoices"
            id: Mapped[int] = mapped_column(primary_key=True)

            def process(self, job: Job) -> None: ...

        assert Invoice.__oban__.queue == "billing"
        assert Invoice(id=1).id == 1


class TestRefusals:
    def test_a_class_without_process_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"Nothing has no method process\(self, job\)"):

            @worker()
            class Nothing:
                pass

    def test_a_process_that_takes_no_job_is_refused(self) -> None:
        with pytest.raises(
            TypeError, match=r"process\(self\) -> None can't be called with a job: define"
        ):

            class Jobless(Worker):
                def process(self) -> None: ...

    def test_a_process_that_needs_more_arguments_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"process\(self, job, \*, more\) can't be called with"):

            class Greedy(Worker):
                def process(self, job, *, more): ...

    @pytest.mark.parametrize("asynchronous", [True, False])
    def test_a_generator_is_refused(self, asynchronous: bool) -> None:
        def process(self, job):
            yield

        async def aprocess(self, job):
            yield

        with pytest.raises(TypeError, match=r"Lazy contains a yield, so a job would not run it"):
            type("Lazy", (Worker,), {"process": aprocess if asynchronous else process})

    def test_an_async_backoff_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"the backoff of .*\.Patient is async"):

            class Patient(Worker):
                def process(self, job): ...
                async def backoff(self, job): ...

    def test_a_backoff_that_is_no_method_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"Steady must be a function of the job .*, not 60"):

            class Steady(Worker):
                backoff = 60

                def process(self, job): ...

    def test_a_misspelt_option_of_the_class_is_refused(self) -> None:
        with pytest.raises(
            TypeError, match=r"Typo has no option 'max_attempt'; did you mean 'max_"
        ):

            class Typo(Worker, max_attempt=3):
                def process(self, job): ...

    def test_a_misspelt_option_beside_other_bases_is_refused(self) -> None:
        class Base(DeclarativeBase):
            pass

        class Coloured:
            def __init_subclass__(cls, colour: str = "", **others: Any) -> None:
                super().__init_subclass__(**others)

        def abstract(namespace: dict[str, Any]) -> None:
            namespace["__abstract__"] = True

        item = TypeVar("item")
        message = r"Typo has no option 'quue'; did you mean 'queue'\?"
        for bases in [(Base,), (MappedAsDataclass, Base), (Coloured,)]:
            with pytest.raises(TypeError, match=message):
                new_class("Typo", (Worker, *bases), {"quue": "x"}, abstract)
        with pytest.raises(TypeError, match=message):

            class Typo(Worker, Generic[item], quue="x"):
                pass

    def test_another_base_reports_its_own_errors(self) -> None:
        class Coloured:
            def __init_subclass__(cls, colour: str) -> None:
                raise TypeError(f"{colour} is no colour")

        with pytest.raises(TypeError, match="loud is no colour"):

            class Loud(Worker, Coloured, colour="loud"):
                pass

    def test_an_unknown_option_is_refused(self) -> None:
        known = "queue, priority, max_attempts, tags, meta, deadline, unique, chain, name, oban"
        with pytest.raises(TypeError, match=f"Odd has no option 'zzz'; there are {known}"):

            class Odd(Worker, zzz=3):
                def process(self, job): ...

    @pytest.mark.parametrize("oban", ["", 5])
    def test_an_invalid_name_of_an_instance_is_refused(self, oban: Any) -> None:
        with pytest.raises(TypeError, match="oban must be the name of an instance, not"):

            @worker(oban=oban)
            class Homeless:
                def process(self, job): ...


@given(attempt=st.integers(1, 20), max_attempts=st.integers(1, 20))
def test_the_default_backoff_is_that_of_oban(attempt: int, max_attempts: int) -> None:
    job = Job("w", max_attempts=max_attempts)
    job.attempt = attempt
    exact = 15 + 2**attempt
    assert exact <= Inheriting().backoff(job) <= exact * 1.1
    assert exact <= Decorated().backoff(job) <= exact * 1.1  # type: ignore[attr-defined]


@given(max_attempts=st.integers(21, 32767), data=st.data())
def test_the_backoff_of_more_than_20_attempts_is_scaled(
    max_attempts: int, data: st.DataObject
) -> None:
    job = Job("w", max_attempts=max_attempts)
    job.attempt = data.draw(st.integers(1, max_attempts))
    exact = 15 + 2 ** round(job.attempt / max_attempts * 20)
    assert exact <= Inheriting().backoff(job) <= exact * 1.1


def test_a_backoff_of_the_worker_is_kept() -> None:
    @worker()
    class Steady:
        def process(self, job: Job) -> None: ...

        def backoff(self, job: Job) -> float:
            return 60

    assert Steady().backoff(Job("w")) == 60
