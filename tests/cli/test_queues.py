"""`oban-sqla queues`: the list of queues, and the orders to nodes."""

import json

import pytest

from tests.cli.conftest import Say, Spawn
from tests.cli.test_run import app, at, end, enqueue, states, wait_for  # noqa: F401


def test_a_node_follows_orders(spawn: Spawn, on: Say, postgres_dsn: str, prefix: str) -> None:
    process = spawn("start", *at(postgres_dsn, prefix), "--node", "n1")
    wait_for(process, "runs default")

    said = on("queues", "pause", "default", "--node", "n1")
    assert said.stdout == "default of Oban: paused on n1\n"
    assert said.stderr.count("\n") == 1
    assert "named by dsn (command line)" in said.stderr
    enqueue(postgres_dsn, prefix, "Quick")
    assert on("queues", "resume", "--all").stdout == "all queues of Oban: resumed on all nodes\n"
    wait_for(process, "ran 1")

    assert on("queues", "scale", "default", "7").stdout.startswith("default of Oban: scaled to 7")
    scale = ("queues", "scale", "default")
    said = on(*scale, "8", "--global-limit", "9").stdout
    assert said == "default of Oban: scaled to 8, global limit 9 on all nodes\n"
    said = on(*scale, "--no-global-limit", "--rate-limit", "60/1.5").stdout
    assert said == "default of Oban: global limit removed, rate limit 60/1.5 on all nodes\n"
    said = on(*scale, "--global-limit", "2", "--by", "account_id").stdout
    assert said == "default of Oban: global limit 2, for each account_id on all nodes\n"
    said = on(*scale, "--rate-limit", "60/1", "--by", "account_id").stdout
    assert said == "default of Oban: rate limit 60/1, for each account_id on all nodes\n"
    said = on(*scale, "--no-global-limit").stdout
    assert said == "default of Oban: global limit removed on all nodes\n"
    said = on(*scale, "--no-rate-limit").stdout
    assert said == "default of Oban: rate limit removed on all nodes\n"
    assert on("queues", "start", "other", "2").stdout == "other of Oban: started on all nodes\n"
    assert on("queues", "stop", "other").stdout.startswith("other of Oban: stopped on all nodes")
    (node,) = json.loads(on("status", "--json").stdout)["nodes"]
    assert node["node"] == "n1"
    process.terminate()
    end(process)
    assert process.returncode == 0
    assert states(postgres_dsn, prefix) == [("completed", 1)]


def test_an_order_that_no_node_hears_is_reported(on: Say) -> None:
    said = on("queues", "pause", "q", "--name", "Shop").stderr
    assert said.endswith("oban-sqla: no node of Shop runs q now\n")
    said = on("queues", "resume", "--all", "--name", "Shop", "--node", "n").stderr
    assert said.endswith("oban-sqla: no node n of Shop runs now\n")


def test_list_shows_the_queues(on: Say, postgres_dsn: str, prefix: str) -> None:
    assert on("queues", "list").stdout == "no queue runs, and there are no jobs\n"
    assert json.loads(on("queues", "list", "--json").stdout) == []
    enqueue(postgres_dsn, prefix, "Quick")
    header, _, row = on("queues", "list").stdout.splitlines()
    assert header.split() == ["queue", "nodes", "running", "paused", "oldest", "waits", "jobs"]
    assert row.startswith("default ")
    assert row.rstrip().endswith("1 available")
    (queue,) = json.loads(on("queues", "list", "--json").stdout)
    assert queue["counts"] == {"available": {"count": 1, "estimated": False}}


@pytest.mark.parametrize(
    "arguments",
    [
        ["pause"],
        ["pause", "q", "--all"],
        ["resume"],
        ["scale", "q"],
        ["scale", "q", "0"],
        ["scale", "q", "--global-limit", "0"],
        ["scale", "q", "--global-limit", "1", "--no-global-limit"],
        ["scale", "q", "--global-limit", "1", "--node", "n"],
        ["scale", "q", "--rate-limit", "60"],
        ["scale", "q", "--rate-limit", "60/60", "--no-rate-limit"],
        ["scale", "q", "5", "--by", "account_id"],
        ["scale", "q", "--no-global-limit", "--by", "account_id"],
        ["start", "q", "x"],
    ],
)
def test_wrong_usage_is_reported(on: Say, arguments: list[str]) -> None:
    assert on("queues", *arguments, code=2).stderr


def test_an_invalid_queue_name_is_refused(on: Say) -> None:
    assert "a queue's name must be" in on("queues", "start", " ", "5", code=1).stderr
    assert "queue must not be blank, got ''" in on("queues", "pause", "", code=1).stderr
    said = on("queues", "stop", "*", code=1)
    assert said.stdout == ""
    assert said.stderr.endswith("only possible for pause and resume; name the queue to stop\n")
