"""The bookmarks, over HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from oban_sqla import JobState
from tests.examples.conftest import Finished, Process, Spawn, alembic, client_of
from tests.examples.provider import Provider

pytestmark = pytest.mark.examples

APP = Path(__file__).parents[2] / "examples" / "flask_app"

StartWorker = Callable[[], Process]


@pytest.fixture
def site(spawn: Spawn, database_url: str) -> Iterator[httpx.Client]:
    """The app alone, as Flask runs it, with its tables."""
    alembic(APP, "upgrade", "head", DATABASE_URL=database_url)
    process = spawn(
        *("flask", "--app", "examples.flask_app.app", "run", "--port", "0"),
        DATABASE_URL=database_url,
    )
    with client_of(process) as client:
        yield client


@pytest.fixture
def start_worker(spawn: Spawn, database_url: str) -> StartWorker:
    def start_worker() -> Process:
        process = spawn(
            *("oban_sqla.cli", "start", "--config", str(APP / "oban.toml")), OBAN_DSN=database_url
        )
        process.says("runs pages")
        return process

    return start_worker


def add(site: httpx.Client, url: str) -> str:
    """Add a bookmark, and return its URL."""
    answer = site.post("/bookmarks", data={"url": url})
    assert answer.status_code == 303
    return str(answer.headers["Location"])


def test_another_process_reads_the_title(
    site: httpx.Client, start_worker: StartWorker, provider: Provider, finished: Finished
) -> None:
    where = add(site, f"{provider.url}/page")
    (job,) = site.get(where).json()["jobs"]
    assert job["state"] == "available"
    assert "(being read)" in site.get("/").text

    start_worker()
    provider.call().answer(503)
    page = provider.call()
    assert page.path == "/page"
    (job,) = site.get(where).json()["jobs"]
    assert (job["state"], job["attempt"]) == ("executing", 2)

    page.answer(text="<html><title>\n Caf&eacute; &amp; tea </title>")
    finished(job["id"])
    assert site.get(where).json()["title"] == "Café & tea"
    assert "Café &amp; tea</a>" in site.get("/").text


def test_a_bookmark_that_is_deleted_meanwhile_cancels_its_job(
    site: httpx.Client, start_worker: StartWorker, provider: Provider, finished: Finished
) -> None:
    start_worker()
    where = add(site, f"{provider.url}/page")
    (job,) = site.get(where).json()["jobs"]
    page = provider.call()
    assert site.delete(where).status_code == 204
    page.answer(text="<title>Too late</title>")
    assert finished(job["id"]).state is JobState.CANCELLED
    assert site.get(where).status_code == 404


def test_a_refused_bookmark_leaves_no_job(site: httpx.Client, database_dsn: str) -> None:
    add(site, "http://x.test/page")
    assert site.post("/bookmarks", data={"url": "http://x.test/page"}).status_code == 409
    assert site.post("/bookmarks", data={"url": "file:///etc/passwd"}).status_code == 400
    with psycopg.connect(database_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM oban_jobs").fetchone() == (1,)


def test_one_command_starts_the_example(
    spawn: Spawn, provider: Provider, database_url: str, finished: Finished
) -> None:
    process = spawn("examples.flask_app", "--port", "0", "--dsn", database_url)
    with client_of(process) as site:
        where = add(site, f"{provider.url}/page")
        (job,) = site.get(where).json()["jobs"]
        provider.call().answer(text="<title>A page</title>")
        finished(job["id"])
        assert site.get(where).json()["title"] == "A page"
    process.stop()
