"""Sentry: which events are sent, and which data they leave out."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Cancel, Job, Snooze, Worker
from oban_sqla.contrib import sentry
from oban_sqla.contrib.sentry import ObanIntegration
from tests.conftest import StartOban
from tests.listening import hear

DSN = "https://public@sentry.test/1"

Sessions = async_sessionmaker[AsyncSession]


class Work(Worker, name="tests.sentry.Work", max_attempts=2):
    async def process(self, job: Job) -> Any:
        secret = job.args.get("secret")
        match job.args.get("do"):
            case "raise":
                raise LookupError("no such thing")
            case "cancel":
                return Cancel("not wanted")
            case "snooze" if not job.meta.get("snoozed"):
                return Snooze(0.01)
            case "wait":
                await asyncio.sleep(60)
        return secret and None

    def backoff(self, job: Job) -> float:
        return 0.01


class Sent(Transport):
    """A transport that keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def capture_envelope(self, envelope: Any) -> None:
        if self.error is not None:
            raise self.error
        self.items += [(item.type, item.payload.json) for item in envelope.items]

    def of(self, kind: str) -> list[Any]:
        return [payload for type_, payload in self.items if type_ == kind]


@pytest.fixture
def sent(request: pytest.FixtureRequest) -> Iterator[Sent]:
    transport = Sent()
    integration = ObanIntegration(**getattr(request, "param", {}))
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            DSN,
            transport=transport,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[integration],
        )
        sentry.attach()
        yield transport
    sentry.detach()
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture(autouse=True)
def discarding(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = caplog.get_records("call")
    records[:] = [record for record in records if record.name != "oban_sqla.jobs"]


async def run(start: StartOban, job: Job, attempts: int = 1) -> Job:
    """Run a job until it has had this number of attempts, and return it."""
    oban = await start(queues={"default": 5}, poll_interval=0.05)
    with hear(oban, "job_stop") as stops, hear(oban, "job_exception") as exceptions:
        await oban.enqueue(job)
        if job.args.get("do") == "raise":
            await exceptions.wait(attempts)
        else:
            await stops.wait(attempts)
    return job


async def test_an_error_has_its_job_without_arguments(start: StartOban, sent: Sent) -> None:
    job = await run(start, Work.new({"do": "raise", "secret": "s3cret"}), 2)
    first, last = sent.of("event")
    assert first["exception"]["values"][-1]["type"] == "LookupError"
    assert first["exception"]["values"][-1]["mechanism"] == {"type": "oban_sqla", "handled": False}
    assert first["tags"] == {"oban.queue": "default", "oban.worker": "tests.sentry.Work"}
    assert first["contexts"]["oban job"] == {
        "id": job.id,
        "worker": "tests.sentry.Work",
        "queue": "default",
        "attempt": 1,
        "max_attempts": 2,
    }
    assert last["contexts"]["oban job"]["attempt"] == 2
    assert "s3cret" not in json.dumps(sent.items)


@pytest.mark.parametrize("sent", [{"arguments": True}], indirect=True)
async def test_an_error_has_the_arguments_on_request(start: StartOban, sent: Sent) -> None:
    await run(start, Work.new({"do": "raise", "n": 7}))
    assert sent.of("event")[0]["contexts"]["oban job"]["args"] == {"do": "raise", "n": 7}


@pytest.mark.parametrize("sent", [{"capture": "discarded"}], indirect=True)
async def test_only_errors_of_discarded_jobs_are_sent_on_request(
    start: StartOban, sent: Sent
) -> None:
    await run(start, Work.new({"do": "raise"}), 2)
    (event,) = sent.of("event")
    assert event["contexts"]["oban job"]["attempt"] == 2


@pytest.mark.parametrize(("do", "attempts"), [("cancel", 1), ("snooze", 2), (None, 1)])
async def test_outcomes_without_an_error_send_nothing(
    do: str | None, attempts: int, start: StartOban, sent: Sent
) -> None:
    await run(start, Work.new({"do": do}), attempts)
    assert sent.of("event") == []
    statuses = [one["contexts"]["trace"]["status"] for one in sent.of("transaction")]
    assert statuses == ["cancelled" if do == "cancel" else "ok"] * attempts


async def test_the_request_and_the_job_are_in_one_trace(
    start: StartOban, sent: Sent, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 5})
    with hear(oban, "job_stop") as stops:
        with sentry_sdk.start_transaction(op="http.server", name="request"):
            async with sessions.begin() as session:
                session.add(job := Work.new())
        await stops.wait()
    by_name = {one["transaction"]: one for one in sent.of("transaction")}
    request, task = by_name["request"], by_name["tests.sentry.Work"]
    (publish,) = request["spans"]
    assert publish["op"] == "queue.publish"
    common = {
        "messaging.system": "oban",
        "messaging.destination.name": "default",
        "messaging.message.id": str(job.id),
    }
    assert publish["data"].items() >= common.items()
    trace = task["contexts"]["trace"]
    assert trace["op"] == "queue.task.oban"
    assert trace["trace_id"] == request["contexts"]["trace"]["trace_id"]
    assert trace["parent_span_id"] == publish["span_id"]
    (process,) = task["spans"]
    assert process["op"] == "queue.process"
    assert process["data"].items() >= {**common, "messaging.message.retry.count": 0}.items()
    assert process["data"]["messaging.message.receive.latency"] >= 0


async def test_an_attempt_that_a_stop_cuts_short_ends_its_transaction(
    start: StartOban, sent: Sent
) -> None:
    oban = await start(queues={"default": 5}, shutdown_grace_period=0.01)
    with hear(oban, "job_start") as starts:
        await oban.enqueue(Work.new({"do": "wait"}))
        await starts.wait()
    await oban.stop()
    (transaction,) = sent.of("transaction")
    assert transaction["contexts"]["trace"]["status"] == "aborted"


CRON = {
    "cron": True,
    "cron_name": "nightly",
    "cron_expr": "0 3 * * *",
    "cron_tz": "Europe/Berlin",
    "cron_at": datetime(2026, 11, 30, tzinfo=UTC).isoformat(),
}


@pytest.mark.parametrize("sent", [{"monitor_cron": True}], indirect=True)
@pytest.mark.parametrize(("do", "status"), [(None, "ok"), ("raise", "error")])
async def test_a_cron_job_checks_in(
    do: str | None, status: str, start: StartOban, sent: Sent
) -> None:
    await run(start, Work.new({"do": do}, meta=CRON, max_attempts=1))
    began, ended = sent.of("check_in")
    assert (began["status"], ended["status"]) == ("in_progress", status)
    assert began["check_in_id"] == ended["check_in_id"]
    assert began["monitor_slug"] == "nightly"
    schedule = {"type": "crontab", "value": "0 3 * * *"}
    assert began["monitor_config"] == {"schedule": schedule, "timezone": "Europe/Berlin"}


async def test_a_cron_job_checks_in_only_on_request(start: StartOban, sent: Sent) -> None:
    await run(start, Work.new(meta=CRON))
    assert sent.of("check_in") == []


async def test_a_transport_that_raises_disturbs_no_job(
    start: StartOban, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    sent.error = OSError("down")
    oban = await start(queues={"default": 5}, poll_interval=0.05)
    job = await oban.enqueue(Work.new({"do": "raise"}))
    assert (await oban.wait(job, timeout=20)).state == "discarded"
    caplog.clear()


async def test_without_the_integration_nothing_is_sent(
    start: StartOban, sent: Sent, sessions: Sessions
) -> None:
    sentry_sdk.init(DSN, transport=sent, default_integrations=False)
    job = await run(start, Work.new({"do": "raise"}, max_attempts=1))
    assert sent.items == []
    assert job.meta == {}


def test_another_capture_is_refused() -> None:
    with pytest.raises(ValueError, match="capture must be 'always' or 'discarded', not 'never'"):
        ObanIntegration(capture="never")  # type: ignore[arg-type]
