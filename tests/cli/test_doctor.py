"""`oban-sqla doctor`."""

import json

import psycopg

from tests.cli.conftest import Say
from tests.cli.test_run import enqueue
from tests.cli.test_status import beat


def test_doctor_prints_findings_and_fails_on_problems(
    on: Say, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Quick")
    said = on("doctor", code=1).stdout.splitlines()
    at = said.index("problem  queues: no node runs the queue default, which has available jobs: 1")
    assert said[at + 1].startswith("         -> oban-sqla start --queues default:10")
    assert "ok       listen: a NOTIFY was heard" in said
    found = json.loads(on("doctor", "--json", code=1).stdout)
    assert found["ok"] is False
    assert {one["level"] for one in found["findings"]} >= {"ok", "problem"}


def test_the_remedy_of_a_forgotten_pause_is_a_command(
    on: Say, postgres_dsn: str, prefix: str
) -> None:
    beat(postgres_dsn, prefix, "n1", 1, "idle")
    on("queues", "pause", "--all", "--node", "n1", "--name", "Shop")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            f"UPDATE {prefix}.oban_sqla_controls SET changed_at = changed_at - interval '2 days'"
        )

    def remedies() -> list[str]:
        findings = json.loads(on("doctor", "--json", code=1).stdout)["findings"]
        return [one["remedy"] for one in findings if one["check"] == "pauses" and one["remedy"]]

    (remedy,) = remedies()
    assert remedy == "oban-sqla queues resume --all --node n1 --name Shop"
    on(*remedy.split()[1:])
    assert remedies() == []
