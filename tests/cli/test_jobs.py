"""`oban-sqla jobs`."""

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from oban_sqla.monitor.browse import Selection
from tests.cli.conftest import Say

TRACEBACK = "Traceback (most recent call last):\n  File 'a.py'\nValueError: [red]boom\x1b[31m\n"


@pytest.fixture
def jobs(postgres_dsn: str, prefix: str) -> None:
    """Job 1 is available, 2 retryable after an error, 3 executing, 4 completed and old."""
    errors = json.dumps([{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": TRACEBACK}])
    rows = [
        ("available", "mailers", 0, "[]", 0, {}, []),
        ("retryable", "mailers", 1, errors, 0, {}, []),
        ("executing", "reports", 1, "[]", 0, {"n": 3}, ["eu"]),
        ("completed", "reports", 1, "[]", 8, {"text": "x" * 100}, ["eu", "vip"]),
    ]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for state, queue, attempt, said, days, args, tags in rows:
            connection.execute(
                f"INSERT INTO {prefix}.oban_jobs (state, queue, worker, attempt, errors,"
                " args, tags, scheduled_at, inserted_at)"
                " VALUES (%s, %s, 'app.Work', %s, %s, %s, %s,"
                " timezone('UTC', now()) + interval '1 hour',"
                " timezone('UTC', now()) - make_interval(days => %s))",
                [state, queue, attempt, said, json.dumps({"a": [1]} | args), tags, days],
            )


def left(dsn: str, prefix: str) -> list[tuple[int, str]]:
    with psycopg.connect(dsn) as connection:
        query = f"SELECT id, state::text FROM {prefix}.oban_jobs ORDER BY id"
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


@pytest.mark.usefixtures("jobs")
def test_a_job_that_python_can_not_read_is_shown(on: Say, postgres_dsn: str, prefix: str) -> None:
    huge = "9" * 5001
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        change = (
            f"UPDATE {prefix}.oban_jobs SET args = '{{\"n\": {huge}}}', inserted_at = '-infinity',"
            " scheduled_at = 'infinity' WHERE id = 1"
        )
        connection.execute(change.encode())
    listed = on("jobs", "list").stdout
    assert "-infinity" in listed
    assert "(can't be read)" in listed
    assert len(json.loads(on("jobs", "list", "--json").stdout)) == 4
    shown = on("jobs", "show", "1").stdout
    assert "scheduled_at  infinity" in shown
    assert "no time that Python can represent" in shown


@pytest.mark.usefixtures("jobs")
class TestNamesOfWorkers:
    """Workers are named by their full name, or by its end."""

    @pytest.fixture(autouse=True)
    def more(self, jobs: None, postgres_dsn: str, prefix: str) -> None:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            for worker in ("app.mail.Send", "app.sms.Send", "Work"):
                connection.execute(f"INSERT INTO {prefix}.oban_jobs (worker) VALUES (%s)", [worker])

    @pytest.mark.parametrize(
        ("name", "found"), [("mail.Send", 1), ("Work", 1), ("app.Work", 4), ("ork", 0)]
    )
    def test_a_short_name_finds_the_jobs_of_its_worker(
        self, on: Say, name: str, found: int
    ) -> None:
        assert len(json.loads(on("jobs", "list", "--json", "--worker", name).stdout)) == found

    def test_a_short_name_of_several_workers_is_refused(self, on: Say) -> None:
        for command in (["list"], ["delete", "--yes"]):
            told = on("jobs", *command, "--worker", "Send", code=1).stderr
            assert "several workers are named 'Send': app.mail.Send, app.sms.Send" in told

    @pytest.mark.parametrize(
        ("name", "meant"), [("app.Wrok", "app.Work"), ("send_", "app.sms.Send"), ("nothing", None)]
    )
    def test_a_misspelt_name_gets_a_suggestion(self, on: Say, name: str, meant: str | None) -> None:
        told = on("jobs", "list", "--worker", name)
        assert f"no job has a worker {name!r}" in told.stderr
        assert (f"did you mean {meant!r}?" in told.stderr) is (meant is not None)
        assert told.stdout.endswith("no jobs\n")


@pytest.mark.usefixtures("jobs")
class TestLooking:
    def test_list_shows_jobs(self, on: Say) -> None:
        counts, _, header, _, *rows = on("jobs", "list", "--limit", "4").stdout.splitlines()
        assert counts == "in the database: 1 available, 1 retryable, 1 executing, 1 completed"
        assert header.split()[:6] == ["id", "state", "queue", "worker", "args", "tags"]
        assert [row.split()[0] for row in rows] == ["4", "3", "2", "1"]
        assert "8 days" in rows[0]
        assert '{"a": [1], "text": "xxxxxxxxxxxxxxxxxxx…   eu, vip' in rows[0]
        assert "1/20" in rows[2]
        assert "in 60 minutes" in rows[2]
        assert rows[2].rstrip().endswith("ValueError: [red]boom\\x1b[31m")

    def test_filters_select_jobs(self, on: Say) -> None:
        filters: list[tuple[list[str], list[int]]] = [
            (["--state", "available", "--state", "completed"], [4, 1]),
            (["--queue", "mailers", "--limit", "1"], [2]),
            (["--older-than", "7d"], [4]),
            (["--newer-than", "2h", "--worker", "app.Work"], [3, 2, 1]),
            (["1", "3", "99"], [3, 1]),
            (["--args", '{"a": [1]}'], [4, 3, 2, 1]),
            (["--args", '{"a": [1], "n": 3}'], [3]),
            (["--args", '{"a": 1}'], []),
            (["--tag", "eu"], [4, 3]),
            (["--tag", "eu", "--tag", "vip"], [4]),
            (["--worker", "Work"], [4, 3, 2, 1]),
            (["--queue", "none"], []),
        ]
        for arguments, ids in filters:
            found = json.loads(on("jobs", "list", "--json", *arguments).stdout)
            assert [job["id"] for job in found] == ids, arguments

    def test_json_has_every_field(self, on: Say) -> None:
        (job,) = json.loads(on("jobs", "list", "--json", "2").stdout)
        shown = json.loads(on("jobs", "show", "2", "--json").stdout)
        assert shown.items() <= job.items()
        assert job["error"] == "ValueError: [red]boom\x1b[31m"

    def test_show_prints_the_recorded_value(self, on: Say, postgres_dsn: str, prefix: str) -> None:
        with psycopg.connect(postgres_dsn) as connection:
            meta = json.dumps({"recorded": "json", "return": {"rows": [1, None]}})
            connection.execute(f"UPDATE {prefix}.oban_jobs SET meta = %s WHERE id = 4", [meta])
        assert 'recorded      {"rows": [1, null]}' in on("jobs", "show", "4").stdout
        assert "recorded" not in on("jobs", "show", "3").stdout
        job = json.loads(on("jobs", "show", "4", "--json").stdout)
        assert job["recorded"] == {"rows": [1, None]}

    def test_show_prints_one_job_in_full(self, on: Say) -> None:
        said = on("jobs", "show", "2").stdout
        assert 'args          {"a": [1]}' in said
        assert "  attempt 1, 2026-01-01T00:00:00Z\n    Traceback" in said
        assert "\x1b" not in said
        job = json.loads(on("jobs", "show", "2", "--json").stdout)
        assert (job["state"], job["args"], len(job["errors"])) == ("retryable", {"a": [1]}, 1)
        assert on("jobs", "show", "99", code=1).stderr == "oban-sqla: there is no job 99\n"


def test_an_unknown_state_is_shown(call: Say, database_dsn: str) -> None:
    call("schema", "upgrade", "--dsn", database_dsn)
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("ALTER TYPE oban_job_state ADD VALUE 'pondering'")
        connection.execute("INSERT INTO oban_jobs (worker, state) VALUES ('w', 'pondering')")
    assert "pondering" in call("jobs", "list", "--dsn", database_dsn).stdout
    assert "pondering" in call("jobs", "show", "1", "--dsn", database_dsn).stdout
    assert "1 pondering" in call("status", "--dsn", database_dsn).stdout
    said = call("jobs", "delete", "--all", "--yes", "--dsn", database_dsn).stdout
    assert said == "no job to delete matches\n"


@pytest.mark.usefixtures("jobs")
class TestChanging:
    def test_jobs_are_changed_by_their_ids(self, on: Say, postgres_dsn: str, prefix: str) -> None:
        assert on("jobs", "retry", "2", "3", "99", "--yes").stdout == "retried 1 job\n"
        assert left(postgres_dsn, prefix)[1] == (2, "available")
        said = on("jobs", "cancel", "1", "3", "4", "--yes").stdout
        assert said == "cancelled 2 jobs; executing jobs are told to stop\n"
        assert left(postgres_dsn, prefix)[0] == (1, "cancelled")
        found = json.loads(on("jobs", "delete", "1", "3", "--yes", "--json").stdout)
        assert found == {"found": 1, "deleted": 1}
        assert [id for id, _ in left(postgres_dsn, prefix)] == [2, 3, 4]

    @pytest.mark.parametrize(
        ("answer", "code", "count"), [("y\n", 0, 2), ("n\n", 1, 4), ("", 1, 4)]
    )
    def test_a_change_of_many_jobs_asks_first(
        self, on: Say, postgres_dsn: str, prefix: str, answer: str, code: int, count: int
    ) -> None:
        said = on("jobs", "delete", "--queue", "mailers", code=code, input=answer).stdout
        assert "Delete 2 jobs (1 available, 1 retryable) of queue mailers?" in said
        assert len(left(postgres_dsn, prefix)) == count

    @pytest.mark.parametrize(
        ("arguments", "count"),
        [
            (["--worker", "app.Work"], 1),
            (["--all"], 1),
            (["--worker", "app.Work", "--state", "completed"], 1),
            (["--state", "retryable", "--state", "completed"], 2),
            (["--state", "executing"], 0),
            (["4"], 1),
        ],
    )
    def test_retry_takes_failed_and_cancelled_jobs_by_default(
        self, on: Say, arguments: list[str], count: int
    ) -> None:
        said = on("jobs", "retry", *arguments, "--yes", "--json").stdout
        assert json.loads(said) == {"found": count, "retried": count}

    def test_all_changes_every_job(self, on: Say, postgres_dsn: str, prefix: str) -> None:
        assert on("jobs", "delete", "--all", "--yes", "--limit", "1").stdout == "deleted 1 job\n"
        assert on("jobs", "delete", "--all", "--yes").stdout == "deleted 2 jobs\n"
        assert left(postgres_dsn, prefix) == [(3, "executing")]

    def test_the_changes_before_a_failure_are_reported(
        self, on: Say, postgres_dsn: str, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches = Selection.batches

        async def cut(*arguments: Any) -> AsyncIterator[Any]:
            async for batch in batches(*arguments, size=1):
                yield batch
                raise OSError("the wire is cut")

        monkeypatch.setattr(Selection, "batches", cut)
        told = on("jobs", "delete", "--all", "--yes", code=1).stderr.splitlines()
        assert told[1:] == [
            "oban-sqla: the wire is cut",
            "oban-sqla: interrupted: deleted 1 job of 3",
        ]
        assert len(left(postgres_dsn, prefix)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cancel"], "ids or filters"),
        (["delete", "--limit", "1"], "ids or filters"),
        (["retry", "1", "--all"], "ids and filters"),
        (["delete", "1", "--json"], "--yes"),
        (["delete", "0"], "greater than or equal to 1"),
        (["delete", "x"], "ID"),
        (["list", "--state", "happy"], "happy"),
        (["list", "--args", "id=7"], "is not JSON"),
        (["list", "--args", "7"], "is not a JSON object"),
        (["list", "--older-than", "7"], "7d"),
        (["list", "--older-than", "9999999d"], "7d"),
        (["show"], "ID"),
    ],
)
def test_wrong_usage_is_reported(on: Say, arguments: list[str], message: str) -> None:
    assert message in on("jobs", *arguments, code=2).stderr


@pytest.mark.usefixtures("jobs")
def test_why_says_why_a_job_waits(on: Say) -> None:
    reason = on("jobs", "why", "1").stdout.strip()
    assert reason
    assert f"why           {reason}" in on("jobs", "show", "1").stdout.splitlines()
    assert "there is no job 99" in on("jobs", "why", "99", code=1).stderr
