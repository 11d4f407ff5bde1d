"""OpenTelemetry: one trace from the request to the job, and the attributes of spans."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Cancel, Job, Oban, Snooze, Worker, current_job, job
from oban_sqla.contrib import opentelemetry
from oban_sqla.contrib.json_log import JsonFormatter
from oban_sqla.enqueue.enqueue import enqueue
from tests.conftest import StartOban
from tests.enqueue.conn_kinds import CONN_KINDS
from tests.listening import PATIENCE, hear

Sessions = async_sessionmaker[AsyncSession]


class Work(Worker, name="tests.telemetry.Work", max_attempts=3):
    """A worker that follows the job's arguments."""

    async def process(self, job: Job) -> Any:
        match job.args.get("do"):
            case "raise":
                raise LookupError("no such thing")
            case "cancel":
                return Cancel("not wanted")
            case "snooze" if not job.meta.get("snoozed"):
                return Snooze(0.01)
            case "wait":
                await asyncio.sleep(60)
        return None

    def backoff(self, job: Job) -> float:
        return 0.01


@job(name="tests.telemetry.in_a_thread")
def in_a_thread() -> None:
    SEEN.append(trace.get_current_span())
    TRACER.start_span("inner").end()


@job(name="tests.telemetry.nests")
async def nests() -> None:
    own = current_job()
    assert own is not None
    await Work.enqueue({"from": own.id})


SEEN: list[trace.Span] = []
TRACER: trace.Tracer


class Spans(InMemorySpanExporter):
    """The ended spans, for which a test can wait."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        # Called in the thread of the event loop, or while the loop waits for this thread.
        self._more.set()
        return result

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    async def processed(self, count: int = 1) -> list[ReadableSpan]:
        """Wait for this number of attempts, and return their spans."""
        async with asyncio.timeout(PATIENCE):
            while len(spans := self.named("process default")) < count:
                self._more.clear()
                await self._more.wait()
        return spans


@pytest.fixture
def exporter() -> Spans:
    return Spans()


@pytest.fixture
def discarding(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Allow the test to discard jobs, which is logged."""
    yield
    records = caplog.get_records("call")
    records[:] = [record for record in records if record.name != "oban_sqla.jobs"]


@pytest.fixture
def provider(exporter: Spans) -> TracerProvider:
    global TRACER
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    TRACER = provider.get_tracer("tests")
    return provider


@pytest.fixture
def attached(provider: TracerProvider) -> Iterator[None]:
    opentelemetry.attach(tracer_provider=provider)
    yield
    opentelemetry.detach()


@pytest.fixture
async def oban(start: StartOban, attached: None) -> Oban:
    return await start(queues={"default": 5}, poll_interval=0.05)


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> trace.SpanContext:
    assert span.context is not None
    return span.context


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == context_of(parent).span_id


def is_linked(span: ReadableSpan, other: ReadableSpan) -> bool:
    return span.parent is None and [link.context.span_id for link in span.links] == [
        context_of(other).span_id
    ]


async def test_the_request_and_the_job_are_in_one_trace(
    oban: Oban, exporter: Spans, sessions: Sessions
) -> None:
    with TRACER.start_as_current_span("request"):
        async with sessions.begin() as session:
            session.add(new := Work.new({"secret": "s3cret"}))
    await exporter.processed()
    (request,) = exporter.named("request")
    (send,) = exporter.named("send default")
    (process,) = exporter.named("process default")
    assert is_child(send, request)
    assert is_child(process, send)
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    common = {
        "messaging.system": "oban",
        "messaging.destination.name": "default",
        "messaging.message.id": str(new.id),
        "oban.job.worker": "tests.telemetry.Work",
    }
    operation = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert of(send) == {**common, **operation}
    assert of(process) == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "oban.job.attempt": 1,
        "oban.job.state": "completed",
    }
    assert process.status.status_code is StatusCode.UNSET
    assert "s3cret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_the_context_is_flat_in_meta_through_every_conn(
    attached: None,
    exporter: Spans,
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
) -> None:
    for name, opened in CONN_KINDS.items():
        exporter.clear()
        async with opened(postgres_dsn, prefix) as kind:
            await enqueue([Work.new({"way": name})], kind.conn, prefix=prefix)
            await kind.flush()
            await kind.commit()
        async with sessions() as session:
            job = (await session.scalars(select(Job).where(Job.args["way"].astext == name))).one()
        (send,) = exporter.get_finished_spans()
        ids = context_of(send)
        flags = ids.trace_flags
        assert job.meta == {
            "traceparent": f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{flags:02x}"
        }, name
        assert of(send)["messaging.message.id"] == str(job.id)


async def test_a_flush_is_one_span(attached: None, exporter: Spans, sessions: Sessions) -> None:
    async with sessions.begin() as session:
        session.add_all([Work.new({"n": 1}), Work.new({"n": 2}), in_a_thread.new(queue="other")])
    (send,) = exporter.get_finished_spans()
    assert send.name == "send"
    assert of(send)["messaging.batch.message_count"] == 3
    assert "messaging.destination.name" not in of(send)


async def test_a_retry_links(oban: Oban, exporter: Spans, discarding: None) -> None:
    await oban.enqueue(Work.new({"do": "raise"}))
    await exporter.processed(3)
    (send,) = exporter.named("send default")
    first, second, last = exporter.named("process default")
    assert is_child(first, send)
    assert is_linked(second, send)
    assert is_linked(last, send)
    assert [of(span)["oban.job.state"] for span in (first, last)] == ["retryable", "discarded"]
    assert [of(span)["oban.job.attempt"] for span in (first, second, last)] == [1, 2, 3]
    for span in (first, second, last):
        assert span.status.status_code is StatusCode.ERROR
        assert of(span)["error.type"] == "LookupError"
        (raised,) = span.events
        assert (raised.attributes or {})["exception.message"] == "no such thing"


@pytest.mark.parametrize(
    ("do", "states"),
    [("cancel", ["cancelled"]), ("snooze", ["scheduled", "completed"])],
)
async def test_neither_a_cancellation_nor_a_snooze_is_an_error(
    do: str, states: list[str], oban: Oban, exporter: Spans
) -> None:
    await oban.enqueue(Work.new({"do": do}))
    await exporter.processed(len(states))
    (send,) = exporter.named("send default")
    spans = exporter.named("process default")
    assert [of(span)["oban.job.state"] for span in spans] == states
    assert [span.status.status_code for span in spans] == [StatusCode.UNSET] * len(states)
    assert is_child(spans[0], send)
    assert all(is_linked(span, send) for span in spans[1:])


async def test_a_late_job_links(
    attached: None, exporter: Spans, start: StartOban, provider: TracerProvider
) -> None:
    opentelemetry.attach(tracer_provider=provider, prompt_within=timedelta(seconds=0.05))
    oban = await start(queues={"default": 5})
    await oban.enqueue(Work.new(schedule_in=0.2))
    await exporter.processed()
    (send,) = exporter.named("send default")
    assert is_linked(exporter.named("process default")[0], send)


async def test_a_fan_out_links(oban: Oban, exporter: Spans) -> None:
    await oban.enqueue_many(Work.new({"n": n}) for n in range(11))
    await exporter.processed(11)
    (send,) = exporter.named("send default")
    assert all(is_linked(span, send) for span in exporter.named("process default"))


async def test_jobs_enqueued_one_by_one_beneath_a_span_fan_out_too(
    oban: Oban, exporter: Spans
) -> None:
    with TRACER.start_as_current_span("request"):
        for n in range(12):
            await oban.enqueue(Work.new({"n": n}))
    await exporter.processed(12)
    children = [span for span in exporter.named("process default") if span.parent is not None]
    assert len(children) == 10


@pytest.mark.parametrize("relationship", ["parent", "link", "none"])
async def test_the_relationship_of_spans_can_be_chosen(
    relationship: Any,
    start: StartOban,
    attached: None,
    exporter: Spans,
    provider: TracerProvider,
    discarding: None,
) -> None:
    opentelemetry.attach(tracer_provider=provider, relationship=relationship)
    oban = await start(queues={"default": 5})
    await oban.enqueue_many(Work.new({"do": "raise"}, max_attempts=2) for n in range(11))
    await exporter.processed(22)
    (send,) = exporter.named("send default")
    spans = exporter.named("process default")
    match relationship:
        case "parent":
            assert all(is_child(span, send) for span in spans)
        case "link":
            assert all(is_linked(span, send) for span in spans)
        case _:
            assert not any(span.parent or span.links for span in spans)


async def test_threads_and_nested_enqueues_keep_the_context(oban: Oban, exporter: Spans) -> None:
    SEEN.clear()
    await oban.enqueue_many([in_a_thread.new(), nests.new()])
    await exporter.processed(3)
    by_worker = {of(span)["oban.job.worker"]: span for span in exporter.named("process default")}
    (inner,) = exporter.named("inner")
    assert is_child(inner, by_worker["tests.telemetry.in_a_thread"])
    assert [span.get_span_context() for span in SEEN] == [
        context_of(by_worker["tests.telemetry.in_a_thread"])
    ]
    (nested,) = (span for span in exporter.named("send default") if span.parent)
    assert is_child(nested, by_worker["tests.telemetry.nests"])
    assert is_child(by_worker["tests.telemetry.Work"], nested)


async def test_the_caller_s_own_context_wins(
    attached: None, exporter: Spans, start: StartOban
) -> None:
    given = f"00-{7:032x}-{9:016x}-01"
    oban = await start(queues={"default": 5})
    await oban.enqueue(Work.new(meta={"traceparent": given}))
    await exporter.processed()
    (process,) = exporter.named("process default")
    assert process.parent is not None
    assert (process.parent.trace_id, process.parent.span_id) == (7, 9)


async def test_a_job_that_is_enqueued_anew_gets_the_new_context(
    attached: None, exporter: Spans, sessions: Sessions
) -> None:
    job = Work.new()
    for _ in range(2):
        async with sessions() as session:
            session.add(job)
            await session.flush()
            await session.rollback()
    last = context_of(exporter.get_finished_spans()[-1])
    assert f"{last.span_id:016x}" in job.meta["traceparent"]


@pytest.mark.parametrize("value", [7, "", "nonsense", ["x"], {"a": 1}, None])
async def test_invalid_meta_of_other_programs_disturbs_nothing(
    value: Any, oban: Oban, exporter: Spans
) -> None:
    await oban.enqueue(Work.new(meta={"traceparent": value, "tracestate": value}))
    await exporter.processed()
    (process,) = exporter.named("process default")
    assert (process.parent, of(process)["oban.job.state"]) == (None, "completed")


async def test_an_unsampled_enqueue_has_an_unsampled_job(
    start: StartOban, exporter: Spans, attached: None, sessions: Sessions
) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    opentelemetry.attach(tracer_provider=provider)
    async with sessions.begin() as session:
        session.add(job := Work.new())
    assert int(job.meta["traceparent"][-2:], 16) & TraceFlags.SAMPLED == 0


async def test_a_span_ends_when_its_job_goes_back(
    start: StartOban, exporter: Spans, attached: None
) -> None:
    oban = await start(queues={"default": 5}, shutdown_grace_period=0.01)
    with hear(oban, "job_start") as starts:
        await oban.enqueue(Work.new({"do": "wait"}))
        await starts.wait()
    await oban.stop()
    (process,) = exporter.named("process default")
    assert of(process)["oban.job.state"] == "dropped"


async def test_spans_have_arguments_on_request(
    start: StartOban, exporter: Spans, attached: None, provider: TracerProvider
) -> None:
    opentelemetry.attach(tracer_provider=provider, arguments=True)
    oban = await start(queues={"default": 5})
    await oban.enqueue(Work.new({"n": 1}))
    await exporter.processed()
    for span in exporter.get_finished_spans():
        assert json.loads(of(span)["oban.job.args"]) == {"n": 1}


async def test_a_database_error_shows_no_parameters(
    oban: Oban, exporter: Spans, discarding: None
) -> None:
    @job(name="tests.telemetry.divides", max_attempts=1, session=True)
    async def divides(session: AsyncSession, by: int, secret: str) -> None:
        await session.execute(text("SELECT 1 / :by, :secret"), {"by": by, "secret": secret})

    await oban.enqueue(divides.new(0, "s3cret"))
    (process,) = await exporter.processed()
    assert "division by zero" in process.to_json()
    assert "s3cret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_a_failed_insert_is_a_failed_span(
    attached: None, exporter: Spans, engine: AsyncEngine
) -> None:
    nowhere = engine.execution_options(schema_translate_map={None: "nowhere"})
    async with AsyncSession(nowhere) as session:
        session.add(Work.new({"secret": "s3cret"}))
        with pytest.raises(DBAPIError):
            await session.flush()
    (send,) = exporter.get_finished_spans()
    assert send.status.status_code is StatusCode.ERROR
    assert of(send)["error.type"] == "sqlalchemy.exc.ProgrammingError"
    assert "s3cret" not in send.to_json()


async def test_a_job_belongs_to_the_trace_of_its_fastapi_request(
    oban: Oban, provider: TracerProvider, exporter: Spans, sessions: Sessions
) -> None:
    app = FastAPI()

    @app.post("/orders")
    async def create() -> None:
        async with sessions.begin() as session:
            session.add(Work.new())

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    try:
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://shop.test") as client:
            await client.post("/orders")
        (process,) = await exporter.processed()
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
    (request,) = exporter.named("POST /orders")
    (send,) = exporter.named("send default")
    assert is_child(send, request)
    assert is_child(process, send)


class Failing(SpanExporter):
    """A worker that raises, or takes some time."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def export(self, spans: Any) -> SpanExportResult:
        if self._error is not None:
            raise self._error
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("error", [OSError("down"), None])
async def test_an_exporter_that_fails_disturbs_no_job(
    error: BaseException | None,
    start: StartOban,
    attached: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Failing(error)))
    opentelemetry.attach(tracer_provider=provider)
    oban = await start(queues={"default": 5})
    done = await oban.wait(await oban.enqueue(Work.new()), timeout=20)
    assert done.state == "completed"
    caplog.clear()


class Stuck(SpanExporter):
    """A worker that runs until it is released."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.released.wait(PATIENCE)
        return SpanExportResult.SUCCESS


async def test_an_exporter_that_is_slow_disturbs_no_job(start: StartOban, attached: None) -> None:
    exporter = Stuck()
    provider = TracerProvider()
    processor = BatchSpanProcessor(
        exporter, schedule_delay_millis=1, max_queue_size=8, max_export_batch_size=1
    )
    provider.add_span_processor(processor)
    opentelemetry.attach(tracer_provider=provider)
    oban = await start(queues={"default": 5})
    try:
        first = await oban.enqueue(Work.new())
        await oban.wait(first, timeout=PATIENCE)
        assert await asyncio.to_thread(exporter.begun.wait, PATIENCE)
        # More spans than the queue of the processor holds.
        jobs = await oban.enqueue_many(Work.new({"n": n}) for n in range(50))
        done = await oban.wait_many(jobs, timeout=PATIENCE)
    finally:
        exporter.released.set()
        await asyncio.to_thread(provider.shutdown)
    assert {job.state for job in done} == {"completed"}


async def test_the_json_log_has_the_ids_of_the_span(
    oban: Oban, exporter: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[dict[str, Any]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    handler = Handler()
    logger = logging.getLogger("oban_sqla.jobs")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        await oban.enqueue(Work.new())
        await exporter.processed()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    ids = context_of(exporter.named("process default")[0])
    (line,) = [line for line in lines if line.get("event") == "job_stop"]
    assert line["trace_id"] == f"{ids.trace_id:032x}"
    assert line["span_id"] == f"{ids.span_id:016x}"


def test_without_a_span_the_json_log_has_no_ids(attached: None) -> None:
    record = logging.makeLogRecord({"msg": "m"})
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


async def test_auto_instrumentation_finds_the_instrumentor(
    provider: TracerProvider, exporter: Spans, sessions: Sessions
) -> None:
    (found,) = entry_points(group="opentelemetry_instrumentor", name="oban_sqla")
    instrumentor = found.load()()
    instrumentor.instrument(tracer_provider=provider)
    try:
        async with sessions.begin() as session:
            session.add(Work.new())
    finally:
        instrumentor.uninstrument()
    async with sessions.begin() as session:
        session.add(job := Work.new())
    assert len(exporter.get_finished_spans()) == 1
    assert job.meta == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relationship": "child"}, "relationship must be one of auto, parent, link, none"),
        ({"fan_out": -1}, "fan_out must be a number of jobs, 0 or more, not -1"),
        ({"fan_out": "3"}, "fan_out must be a number of jobs"),
        ({"prompt_within": -1}, "prompt_within must not be negative"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opentelemetry.attach(**options)
