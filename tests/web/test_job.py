"""The page of a job."""

from datetime import UTC, datetime, timedelta

import pytest

from oban_sqla import Job, JobState, Oban
from oban_sqla.web.frames import blocks, last_frame
from tests.conftest import Add, StartOban
from tests.factories import JobFactory
from tests.listening import hear
from tests.web.conftest import Open
from tests.web.site import Site

TRACE = """Traceback (most recent call last):
  File "/srv/shop/mail.py", line 7, in send
    client.post(body)
  File "/srv/venv/lib/python3.12/site-packages/http/api.py", line 12, in post
    return self.request(body)
           ^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.12/socket.py", line 9, in connect
    raise OSError
OSError: no route
"""


def test_frames_of_libraries_are_folded() -> None:
    first, library, last = blocks(TRACE)
    assert first.text.endswith("client.post(body)")
    assert library.folded == 2
    assert library.text.endswith("    raise OSError")
    assert last.text == "OSError: no route"
    assert "\n".join(block.text for block in blocks(TRACE)) == TRACE.rstrip()
    assert last_frame(TRACE) == "shop/mail.py, in send"
    assert last_frame("boom") is None
    assert [block.text for block in blocks("boom")] == ["boom"]


async def test_the_page_shows_the_history_of_a_job(site: Site, add: Add) -> None:
    now = datetime.now(UTC)
    [id] = await add(
        JobFactory(
            retryable=True,
            worker="app.Mail",
            args={"to": "ann", "invoice": {"$model": "shop.Invoice", "$key": {"id": 7}}},
            tags=["vip"],
            attempt=2,
            attempted_by=["node-7", "x"],
            inserted_at=now - timedelta(hours=1),
            errors=[
                {
                    "attempt": 1,
                    "at": f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}",
                    "error": TRACE,
                },
                {
                    "attempt": 2,
                    "at": f"{now - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}",
                    "error": "late: x",
                },
            ],
        )
    )
    text = (await site.read(f"jobs/{id}")).text
    for said in (
        "app.Mail",
        "attempt 1 failed",
        "OSError: no route",
        "late: x",
        "on node-7",
        "2 frames of libraries",
        "2 failed attempts",
        "It is due in",
        "since attempt 2 of 20 failed.",
        "vip",
    ):
        assert said in text
    assert text.index("late: x") < text.index("Traceback")


@pytest.mark.parametrize("id", ["0", "999", "99999999999999999999999"])
async def test_a_missing_job_is_not_found(site: Site, id: str) -> None:
    assert "no" in (await site.read(f"jobs/{id}", 404)).text


async def test_the_page_says_why_a_job_waits(site: Site, start: StartOban, oban: Oban) -> None:
    node = await start(queues={"mailers": 1}, node="n1")
    with hear(node, "queue_paused") as paused:
        await node.pause_queue("mailers")
        await paused.wait()
    job = await oban.enqueue(Job("app.Mail", queue="mailers"))
    await oban.enqueue(Job("app.Mail", queue="mailers"))
    with hear(node, "claim_stop"):
        await node.stop()
    assert "No node runs the queue mailers." in (await site.read(f"jobs/{job.id}")).text


async def test_a_job_is_edited(site: Site, add: Add, oban: Oban) -> None:
    [id] = await add(JobFactory(scheduled=True, tags=["old"], worker="app.Mail", args={"n": 1}))
    page = await site.read(f"jobs/{id}")
    form = next(form for form in page.forms if form.action.endswith("/edit"))
    given = {**dict(form.fields), "priority": "3", "tags": "new, vip"}
    with hear(oban, "dashboard_action") as actions:
        sent = await site.post(
            form.action, [*given.items(), ("scheduled_at", "2031-05-06T07:08:09")]
        )
    assert sent.headers["Location"] == f"/jobs/{id}?done=edit"
    job = await oban.get_one_job(id)
    assert (job.priority, job.tags) == (3, ["new", "vip"])
    assert job.scheduled_at == datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    [action] = actions.events
    assert (action.user, action.action, action.count) == ("loopback", "edit_job", 1)
    assert "was changed" in (await site.read(f"jobs/{id}?done=edit")).text


async def test_the_worker_and_the_arguments_can_not_be_edited(
    site: Site, add: Add, oban: Oban
) -> None:
    [id] = await add(JobFactory(worker="app.Mail", args={"n": 1}, queue="a"))
    extra = {"worker": "os.system", "args": '{"n": 2}', "queue": "b", "meta": "{}", "state": "x"}
    fields = [*extra.items(), ("priority", "1"), await site.token()]
    await site.post(f"/jobs/{id}/edit", fields)
    job = await oban.get_one_job(id)
    assert (job.worker, job.args, job.queue, job.priority) == ("app.Mail", {"n": 1}, "a", 1)
    assert job.state is JobState.AVAILABLE


async def test_an_invalid_edit_is_refused(site: Site, add: Add, oban: Oban) -> None:
    waits, done = await add(JobFactory(), JobFactory(completed=True))
    token = await site.token()
    for field, value in (("priority", "12"), ("priority", "x"), ("scheduled_at", "soon")):
        await site.post(f"/jobs/{waits}/edit", [(field, value), token], 400)
    refused = await site.post(f"/jobs/{done}/edit", [("priority", "1"), token], 409)
    assert "does not wait any more" in refused.text
    await site.post("/jobs/99999999999999999999999/edit", [("priority", "1"), token], 404)
    assert (await oban.get_one_job(done)).priority == 0


async def test_a_reader_can_not_edit(open_site: Open, add: Add) -> None:
    [id] = await add(JobFactory())
    site = open_site(authorize=lambda request: "read")
    await site.post(f"/jobs/{id}/edit", [("priority", "1"), await site.token()], 403)


async def test_a_huge_job_is_cut(site: Site, add: Add) -> None:
    text = "x" * 100_000
    error = {"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": f"{TRACE}{text}: wrong"}
    [id] = await add(
        JobFactory(
            discarded=True,
            worker=f"app.{text[:120]}",
            args={"text": text},
            meta={"text": text},
            tags=["y" * 200] * 50,
            errors=[error] * 30,
        )
    )
    for path in (f"jobs/{id}", "jobs", "errors", "", "queues"):
        assert len((await site.get(path)).content) < 100_000
    shown = (await site.read(f"jobs/{id}")).text
    assert "more characters" in shown
    assert "30 failed attempts" in shown
    assert "the last 10" in shown
    assert ": wrong" in shown
