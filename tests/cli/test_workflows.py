"""`oban-sqla workflows`: list, show and change workflows."""

import json

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from oban_sqla import Job, Workflow
from oban_sqla.dsn import database_url
from tests.cli.conftest import Say


def stored(dsn: str, prefix: str) -> Workflow:
    """A workflow that contains another one."""
    inner = Workflow("inner")
    inner.add("a", Job("w"))
    flow = Workflow("import")
    rows = flow.add("extract", Job("w"))
    flow.add("load", Job("w"), deps=rows)
    flow.add_workflow("inner", inner, deps="load")
    flow.add_last("cleanup", Job("w"))
    engine = create_engine(
        database_url(dsn), execution_options={"schema_translate_map": {None: prefix}}
    )
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.add(flow)
    engine.dispose()
    return flow


def test_list_shows_the_workflows(on: Say, postgres_dsn: str, prefix: str) -> None:
    assert on("workflows", "list").stdout == "no workflows\n"
    flow = stored(postgres_dsn, prefix)
    header, _, row = on("workflows", "list").stdout.splitlines()
    assert header.split()[:4] == ["id", "name", "state", "steps"]
    assert row.split()[:4] == [flow.id, "import", "executing", "0/4"]
    (found,) = json.loads(on("workflows", "list", "--named", "import", "--json").stdout)
    assert (found["id"], found["total"]) == (flow.id, 4)
    assert json.loads(on("workflows", "list", "--state", "completed", "--json").stdout) == []
    assert "'discarded'" in on("workflows", "list", "--state", "failed", code=2).stderr


def test_show_prints_the_steps_as_a_tree(on: Say, postgres_dsn: str, prefix: str) -> None:
    flow = stored(postgres_dsn, prefix)
    assert on("workflows", "show", flow.id).stdout.splitlines() == [
        "import: executing, 0 of 4 steps have ended",
        "  extract  available",
        "  load     suspended  waits for extract",
        "  cleanup  suspended  runs when all others have ended",
        "  inner: executing, 0 of 1 steps have ended",
        "    a  suspended  waits for load",
    ]
    shown = json.loads(on("workflows", "show", flow.id, "--json").stdout)
    assert shown["within"][0]["steps"][0]["waits_for"] == ["load"]
    assert "there is no workflow x" in on("workflows", "show", "x", code=1).stderr


def test_show_says_why_a_step_waits(on: Say, postgres_dsn: str, prefix: str) -> None:
    stored(postgres_dsn, prefix)
    with psycopg.connect(postgres_dsn) as connection:
        query = f'SELECT id FROM "{prefix}".oban_jobs WHERE meta @> \'{{"name": "load"}}\''
        ((id,),) = connection.execute(query).fetchall()  # type: ignore[call-overload]
    assert on("jobs", "why", str(id)).stdout == "it waits for step extract\n"
    assert on("jobs", "show", str(id)).stdout.splitlines()[-1].endswith("it waits for step extract")


def test_a_workflow_is_cancelled_and_retried(on: Say, postgres_dsn: str, prefix: str) -> None:
    flow = stored(postgres_dsn, prefix)
    said = on("workflows", "cancel", flow.id)
    assert said.stdout == f"workflow {flow.id}: 3 steps cancelled\n"
    assert on("workflows", "show", flow.id).stdout.splitlines()[1:4] == [
        "  extract  cancelled",
        "  load     cancelled",
        "  cleanup  available",
    ]
    assert on("workflows", "retry", flow.id).stdout == f"workflow {flow.id}: 3 steps retried\n"
    with psycopg.connect(postgres_dsn) as connection:
        query = f'SELECT state FROM "{prefix}".oban_workflows WHERE parent_id IS NULL'
        assert connection.execute(query).fetchall() == [("executing",)]  # type: ignore[call-overload]
        query = f'SELECT id FROM "{prefix}".oban_workflows WHERE parent_id IS NOT NULL'
        ((inner,),) = connection.execute(query).fetchall()  # type: ignore[call-overload]
    assert on("workflows", "cancel", inner).stdout == f"workflow {inner}: 1 step cancelled\n"
    assert "there is no workflow x" in on("workflows", "cancel", "x", code=1).stderr
