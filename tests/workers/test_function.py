"""Functions whose calls can be enqueued: `@job`."""

import inspect
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_overloads

import pytest
from sqlalchemy.orm import Session

from oban_sqla import InstanceNotFoundError, Job, JobFunction, JobState, job
from oban_sqla.workers.declaration import JOB_OPTIONS
from oban_sqla.workers.registry import resolve

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@job(queue="reports", priority=3, max_attempts=5, tags=["Monthly"], meta={"team": "sales"})
def build_report(month: str, detailed: bool = False) -> dict[str, Any]:
    """Builds a report."""
    return locals()


@job()
async def fetch(url: str) -> str:
    return url


@job()
def variadic(a: int, b: int = 2, *rest: int, c: int, d: int = 4, **others: int) -> dict[str, Any]:
    return locals()


@job()
def positional(a: int, b: int = 2, /, c: int = 3, **others: int) -> dict[str, Any]:
    return locals()


@job()
def keyword(*, a: int, b: int = 2) -> dict[str, Any]:
    return locals()


@job()
def open_ended(**others: Any) -> dict[str, Any]:
    return locals()


@job()
def nothing() -> dict[str, Any]:
    return locals()


def stored(job: Job) -> Job:
    """The job after it was stored and read."""
    return Job(job.worker, json.loads(json.dumps(job.args)))


class TestArguments:
    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "kept"),
        [
            (build_report, ("2026-11",), {}, {"month": "2026-11"}),
            (build_report, ("2026-11", True), {}, {"month": "2026-11", "detailed": True}),
            (build_report, (), {"month": "x", "detailed": 1}, {"month": "x", "detailed": 1}),
            (variadic, (1,), {"c": 3}, {"a": 1, "c": 3}),
            (variadic, (1, 5, 6, 7), {"c": 3}, {"a": 1, "b": 5, "rest": (6, 7), "c": 3}),
            (variadic, (1,), {"c": 3, "d": 8, "e": 9}, {"a": 1, "c": 3, "d": 8, "e": 9}),
            (variadic, (), {"a": 1, "c": 3, "others": 5}, {"a": 1, "c": 3, "others": 5}),
            (positional, (1,), {}, {"a": 1}),
            (positional, (1, 5, 6), {"z": 7}, {"a": 1, "b": 5, "c": 6, "z": 7}),
            (positional, (1,), {"c": 6}, {"a": 1, "c": 6}),
            (keyword, (), {"a": 1}, {"a": 1}),
            (open_ended, (), {"x": None, "others": [1]}, {"x": None, "others": [1]}),
            (open_ended, (), {}, {}),
            (nothing, (), {}, {}),
        ],
    )
    def test_arguments_are_stored_by_name_and_passed_as_given(
        self, function: JobFunction[..., Any], args: Any, kwargs: Any, kept: dict[str, Any]
    ) -> None:
        job = function.new(*args, **kwargs)
        assert job.args == json.loads(json.dumps(kept))
        assert function.process(stored(job)) == function(*args, **kwargs)

    def test_a_default_value_is_that_at_the_run(self) -> None:
        assert build_report.new("x").args == {"month": "x"}
        assert build_report.process(Job("w", {"month": "x"})) == {"month": "x", "detailed": False}

    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "message"),
        [
            (
                build_report,
                (),
                {},
                "build_report(month: str, detailed: bool = False) -> dict[str, typing.Any]:"
                " missing a required argument: 'month'",
            ),
            (build_report, (1, 2, 3), {}, "-> dict[str, typing.Any]: too many positional argument"),
            (build_report, ("x",), {"month": "y"}, "multiple values for argument 'month'"),
            (
                build_report,
                ("x",),
                {"detaild": 1},
                "build_report has no argument 'detaild'; did you mean 'detailed'?",
            ),
            (
                build_report,
                ("x",),
                {"schedule_inn": 1},
                "build_report has no argument 'schedule_inn'; did you mean 'schedule_in'?",
            ),
            (
                build_report,
                ("x",),
                {"zzz": 1},
                "there are month, detailed, queue, priority, max_attempts, tags, meta, deadline,"
                " unique, schedule_in, scheduled_at, conn",
            ),
            (positional, (), {"a": 1}, "**others: int) -> dict[str, typing.Any]: "),
            (nothing, (1,), {}, "nothing() -> dict[str, typing.Any]: too many positional argument"),
        ],
    )
    def test_wrong_calls_are_refused(
        self, function: JobFunction[..., Any], args: Any, kwargs: Any, message: str
    ) -> None:
        with pytest.raises(TypeError) as raised:
            function.new(*args, **kwargs)
        assert message in str(raised.value)

    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "name"),
        [
            (positional, (1,), {"a": 2}, "a"),
            (positional, (1,), {"b": 2}, "b"),
            (variadic, (1,), {"c": 3, "rest": 5}, "rest"),
        ],
    )
    def test_ambiguous_stored_names_are_refused(
        self, function: JobFunction[..., Any], args: Any, kwargs: Any, name: str
    ) -> None:
        function(*args, **kwargs)
        # Python 3.11 itself refuses a positional-only name with a default here.
        message = f"a job can't keep '{name}', since a parameter has|'{name}' parameter is position"
        with pytest.raises(TypeError, match=message):
            function.new(*args, **kwargs)

    def test_values_that_are_not_json_are_refused(self) -> None:
        with pytest.raises(TypeError, match=r"args\['month'\] is a datetime, not JSON"):
            build_report.new(NOON)  # type: ignore[arg-type]

    @pytest.mark.parametrize("args", [["2026-11"], "2026-11", None])
    def test_a_job_whose_arguments_have_no_names_fails_with_the_reason(self, args: Any) -> None:
        job = build_report.new("2026-11")
        job.__dict__.update(id=7, args=args)  # as if loaded
        message = re.escape(f"the args of job 7 are {args!r}, but ") + ".*build_report.*JSON object"
        with pytest.raises(TypeError, match=message):
            build_report.process(job)

    def test_a_job_with_an_unknown_argument_fails_with_the_reason(self) -> None:
        message = r"build_report\(month.*\) -> .* takes no argument 'year'"
        with pytest.raises(TypeError, match=message):
            build_report.process(Job("w", {"month": "x", "year": 2026}))

    def test_a_job_without_a_needed_argument_fails_with_the_reason(self) -> None:
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'month'"):
            build_report.process(Job("w", {"detailed": True}))


class TestOptions:
    def test_a_job_has_the_options_of_its_function(self) -> None:
        job = build_report.new("2026-11")
        assert job.worker == f"{__name__}.build_report"
        assert (job.queue, job.priority, job.max_attempts) == ("reports", 3, 5)
        assert (job.tags, job.meta, job.state) == (["monthly"], {"team": "sales"}, "available")

    def test_options_are_keywords_beside_the_arguments(self) -> None:
        job = build_report.new(
            "2026-11", detailed=True, queue="q", priority=0, max_attempts=1, tags=(), meta={"a": 1}
        )
        assert job.args == {"month": "2026-11", "detailed": True}
        assert (job.queue, job.priority, job.max_attempts, job.tags) == ("q", 0, 1, [])
        assert job.meta == {"a": 1}

    def test_options_may_stand_beside_variadic_arguments(self) -> None:
        job = open_ended.new(x=1, priority=2)
        assert (job.args, job.priority) == ({"x": 1}, 2)

    def test_a_job_may_be_scheduled(self) -> None:
        assert build_report.new("x", scheduled_at=NOON).scheduled_at == NOON
        assert build_report.new("x", schedule_in=timedelta(hours=1)).state is JobState.SCHEDULED

    async def test_enqueue_without_conn_needs_an_instance(self) -> None:
        with pytest.raises(InstanceNotFoundError, match="no Oban instance named 'Oban'"):
            await build_report.enqueue("2026-11")

    @pytest.mark.parametrize(
        "option",
        [
            "queue",
            "priority",
            "max_attempts",
            "tags",
            "meta",
            "schedule_in",
            "scheduled_at",
            "conn",
        ],
    )
    def test_a_parameter_with_the_name_of_an_option_is_refused(self, option: str) -> None:
        function: Any = eval(f"lambda {option}: None")
        with pytest.raises(ValueError, match=rf"<lambda> has a parameter '{option}', which enq"):
            job()(function)

    def test_an_invalid_option_is_refused(self) -> None:
        with pytest.raises(ValueError, match="priority must be from 0 to 9, got 10"):

            @job(priority=10)
            def urgent() -> None: ...

    @pytest.mark.parametrize("asynchronous", [True, False])
    def test_a_generator_is_refused(self, asynchronous: bool) -> None:
        def generate() -> Any:
            yield

        async def agenerate() -> Any:
            yield

        function: Callable[[], Any] = agenerate if asynchronous else generate
        with pytest.raises(
            TypeError, match=r"generate contains a yield, so a job would not run it"
        ):
            job()(function)

    def test_an_async_backoff_is_refused(self) -> None:
        async def backoff(job: Job) -> float:
            return 5

        with pytest.raises(TypeError, match=r"the backoff of .*\.patient is async"):

            @job(backoff=backoff)  # type: ignore[arg-type]
            def patient() -> None: ...

    def test_a_backoff_that_is_no_function_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"steady must be a function of the job .*, not 60"):

            @job(backoff=60)  # type: ignore[call-overload]
            def steady() -> None: ...


class TestOptionsApart:
    """`options(...)`, after which `new` and `enqueue` take only the arguments."""

    def test_a_job_has_the_options(self) -> None:
        job = build_report.options(queue="q", priority=0, scheduled_at=NOON).new("x", detailed=True)
        assert job.args == {"month": "x", "detailed": True}
        assert (job.queue, job.priority, job.scheduled_at) == ("q", 0, NOON)
        assert (job.max_attempts, job.tags) == (5, ["monthly"])

    def test_options_may_be_used_again(self) -> None:
        urgent = build_report.options(priority=0)
        jobs = [urgent.new(month) for month in ("a", "b")]
        assert [(job.args, job.priority) for job in jobs] == [
            ({"month": "a"}, 0),
            ({"month": "b"}, 0),
        ]

    async def test_enqueue_joins_the_conn(self) -> None:
        with Session() as session:
            job = await build_report.options(conn=session, priority=1).enqueue("x")
            assert list(session.new) == [job]
        assert (job.args, job.priority) == ({"month": "x"}, 1)

    async def test_enqueue_without_conn_needs_an_instance(self) -> None:
        with pytest.raises(InstanceNotFoundError, match="no Oban instance named 'Oban'"):
            await build_report.options(priority=1).enqueue("2026-11")

    def test_new_refuses_a_conn(self) -> None:
        with Session() as session, pytest.raises(TypeError, match="no use for conn: call enqueue"):
            build_report.options(conn=session).new("x")

    def test_an_unknown_option_is_refused_at_once(self) -> None:
        with pytest.raises(TypeError, match="no option 'prioriti'; did you mean 'priority'"):
            build_report.options(prioriti=1)  # type: ignore[call-arg]

    def test_an_option_is_no_argument(self) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'priority'"):
            build_report.options(queue="q").new("x", priority=1)  # type: ignore[call-arg]

    def test_an_invalid_value_is_refused_by_new(self) -> None:
        with pytest.raises(ValueError, match="priority must be from 0 to 9, got 10"):
            build_report.options(priority=10).new("x")


@pytest.mark.parametrize(
    ("method", "known"),
    [(JobFunction.new, {*JOB_OPTIONS}), (JobFunction.enqueue, {*JOB_OPTIONS, "conn"})],
)
def test_a_type_checker_accepts_each_option_beside_the_arguments(
    method: Callable[..., Any], known: set[str]
) -> None:
    parameters = [inspect.signature(one).parameters.values() for one in get_overloads(method)]
    named = {one.name for several in parameters for one in several if one.kind is one.KEYWORD_ONLY}
    assert named == known


class TestTheFunctionItself:
    def test_a_sync_function_stays_callable(self) -> None:
        assert build_report("x", detailed=True) == {"month": "x", "detailed": True}

    async def test_an_async_function_stays_async(self) -> None:
        assert await fetch("https://x") == "https://x"

    def test_a_function_keeps_its_name_docstring_and_signature(self) -> None:
        assert build_report.__name__ == "build_report"
        assert build_report.__doc__ == "Builds a report."
        assert list(inspect.signature(build_report).parameters) == ["month", "detailed"]

    def test_a_function_is_registered_as_sync_or_async(self) -> None:
        assert resolve(f"{__name__}.fetch").asynchronous
        assert not resolve(f"{__name__}.build_report").asynchronous

    def test_a_name_may_be_given(self) -> None:
        @job(name="app.tidy")
        def tidy() -> None: ...

        assert tidy.new().worker == "app.tidy"
        assert resolve("app.tidy").create() is tidy


def test_the_backoff_of_oban_or_the_given_one_applies() -> None:
    @job(backoff=lambda job: timedelta(minutes=job.attempt))
    def steady() -> None: ...

    failed = Job("w")
    failed.attempt = 3
    assert steady.backoff(failed) == timedelta(minutes=3)
    assert 23 <= build_report.backoff(failed) <= 23 * 1.1  # type: ignore[operator]
