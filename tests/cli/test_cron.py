"""`oban-sqla cron` and `oban-sqla jobs enqueue`."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli.conftest import Say

APP = """
from oban_sqla import Worker, job

class Report(Worker, queue="reports", cron={"expr": "0 9 * * MON", "timezone": "Europe/Berlin"}):
    async def process(self, job): ...

@job(queue="mail", tags=["greeting"], cron="@reboot")
async def greet(name: str = "ann"): ...

class Once(Worker, unique=True):
    async def process(self, job): ...
"""


@pytest.fixture(autouse=True)
def app(here: Path) -> None:
    (here / "cronapp.py").write_text(APP)


def stored(dsn: str, prefix: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            f"SELECT worker, state::text, queue, args, tags, priority, meta FROM {prefix}.oban_jobs"
            " ORDER BY id"
        ).fetchall()  # type: ignore[arg-type]


class TestCron:
    def test_list_shows_each_entry(self, on: Say, postgres_dsn: str, prefix: str) -> None:
        said = on("cron", "list", "--import", "cronapp").stdout
        rows = {line.split()[0]: line for line in said.splitlines()[2:]}
        assert "0 9 * * MON   Europe/Berlin   reports" in rows["cronapp.Report"]
        assert "@reboot" in rows["cronapp.greet"]
        assert "job" not in rows["cronapp.greet"]
        on("cron", "run", "greet", "--import", "cronapp")
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute(
                f"INSERT INTO {prefix}.oban_sqla_cron SELECT 'Oban', %s, '2026-01-05 08:00'",
                [entry_of(on)],
            )
        entries = json.loads(on("cron", "list", "--import", "cronapp", "--json").stdout)
        report, greet = sorted(entries, key=lambda entry: str(entry["worker"]))
        assert report["next_tick"].endswith(("T07:00:00+00:00", "T08:00:00+00:00"))
        assert report["last_tick"] == "2026-01-05T08:00:00+00:00"
        assert (greet["last_job"], greet["last_state"], greet["next_tick"]) == (
            1,
            "available",
            None,
        )

    def test_run_enqueues_the_job_of_an_entry_now(
        self, on: Say, postgres_dsn: str, prefix: str
    ) -> None:
        said = on("cron", "run", "cronapp.Report").stdout
        assert said == "enqueued job 1 of cronapp.Report in queue reports\n"
        ((worker, state, queue, args, _, _, meta),) = stored(postgres_dsn, prefix)
        assert (worker, state, queue, args) == ("cronapp.Report", "available", "reports", {})
        assert (meta["cron"], meta["cron_tz"]) == (True, "Europe/Berlin")

    def test_a_worker_without_an_entry_is_refused(self, on: Say) -> None:
        assert "has no cron entry" in on("cron", "run", "cronapp.Once", code=1).stderr


def entry_of(on: Say) -> str:
    """The label of the entry of `Report`."""
    on("cron", "run", "cronapp.Report")
    (job,) = json.loads(on("jobs", "list", "--json", "--worker", "cronapp.Report").stdout)
    return str(job["meta"]["cron_name"])


class TestEnqueueing:
    def test_a_job_has_the_options_of_its_worker(
        self, on: Say, postgres_dsn: str, prefix: str
    ) -> None:
        said = on("jobs", "enqueue", "cronapp.greet", '{"name": "bob"}').stdout
        assert said == "enqueued job 1 of cronapp.greet in queue mail\n"
        ((worker, state, queue, args, tags, *_),) = stored(postgres_dsn, prefix)
        assert (worker, state, queue) == ("cronapp.greet", "available", "mail")
        assert (args, tags) == ({"name": "bob"}, ["greeting"])

    def test_options_of_the_command_precede_those_of_the_worker(
        self, on: Say, postgres_dsn: str, prefix: str
    ) -> None:
        options = ["--in", "5m", "--queue", "other", "--priority", "3", "--tag", "a", "--tag", "b"]
        said = on("jobs", "enqueue", "greet", "--import", "cronapp", *options).stdout
        assert said.startswith("enqueued job 1 of cronapp.greet in queue other, at ")
        ((_, state, queue, args, tags, priority, _),) = stored(postgres_dsn, prefix)
        assert (state, queue, args, tags, priority) == ("scheduled", "other", {}, ["a", "b"], 3)

    def test_enqueue_reports_a_duplicate(self, on: Say) -> None:
        on("jobs", "enqueue", "cronapp.Once")
        assert "job 1 is a duplicate" in on("jobs", "enqueue", "cronapp.Once").stdout

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["cronapp.Grete"], 1, "no imported worker is named 'cronapp.Grete'; did you mean"),
            (["no_app.Work"], 1, "no imported worker is named 'no_app.Work'"),
            (["cronapp.greet", "[1]"], 2, "is not a JSON object"),
            (["cronapp.greet", "{}", "--priority", "10"], 1, "priority must be"),
            (["cronapp.greet", "{}", "--in", "5m", "--at", "2030-01-01"], 1, "schedule_in"),
        ],
    )
    def test_enqueue_reports_mistakes(
        self, on: Say, arguments: list[str], code: int, message: str
    ) -> None:
        assert message in on("jobs", "enqueue", *arguments, code=code).stderr
