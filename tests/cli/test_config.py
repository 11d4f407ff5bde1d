"""`oban-sqla config check`, and the settings of `start` and `schema`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Say, Spawn
from tests.cli.test_run import end, wait_for

GOOD = """
dsn = "postgresql://ann:secret@localhost/shop"
queues = { default = 10 }
imports = ["json"]
"""


class TestCheck:
    def test_check_shows_each_setting_and_its_source(
        self, call: Say, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (here / "oban.toml").write_text(GOOD)
        monkeypatch.setenv("OBAN_NODE", "n1")
        said = call("config", "check").stdout
        assert "secret" not in said
        rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
        assert rows["queues"].split() == ["queues", f"{here}/oban.toml", '{"default":', "10}"]
        assert rows["node"].split() == ["node", "OBAN_NODE", '"n1"']
        assert rows["dsn"].split()[2] == '"(hidden)"'
        assert rows["notify"].split() == ["notify", "default", '"listen"']

    def test_check_lists_all_mistakes(self, call: Say, here: Path) -> None:
        (here / "oban.toml").write_text("quues = 1\nstage_batch = 0\n")
        told = call("config", "check", code=1).stderr.splitlines()
        assert len(told) == 2
        assert "there is no setting 'quues'; did you mean 'queues'?" in told[0]
        assert f"{here}/oban.toml: stage_batch must be" in told[1]

    def test_check_names_a_module_that_can_not_be_imported(self, call: Say, here: Path) -> None:
        (here / "other.toml").write_text('imports = ["no_such_app", "json"]\n')
        done = call("config", "check", "--config", "other.toml", code=1)
        assert "can't import 'no_such_app'" in done.stderr
        call("config", "check", "--config", "other.toml", "--no-imports")

    def test_check_names_a_worker_that_can_not_process_jobs(self, call: Say, here: Path) -> None:
        (here / "unfinished_app.py").write_text(
            """
import abc
from oban_sqla import Worker

class Base(Worker): ...
class Done(Base):
    async def process(self, job): ...
class Abstract(Worker, abc.ABC):
    @abc.abstractmethod
    def process(self, job): ...
class Mixed(Worker, queue="mail"):
    async def proces(self, job): ...
"""
        )
        (here / "oban.toml").write_text('imports = ["unfinished_app"]\n')
        (told,) = call("config", "check", code=1).stderr.splitlines()
        assert "unfinished_app.Mixed has no method process(self, job), so no job of it" in told

    def test_check_prints_json(self, call: Say, here: Path) -> None:
        (here / "oban.toml").write_text("[retention]\ncompleted = inf\n")
        found = json.loads(call("config", "check", "--json").stdout)
        assert found["ok"] is True
        settings = {one["name"]: one for one in found["settings"]}
        assert settings["retention"]["value"] == {"completed": None}
        assert settings["prefix"] == {"name": "prefix", "value": None, "source": "default"}
        assert found["notes"] == ["start needs dsn and queues and imports, on its command line"]
        (here / "oban.toml").write_text("wrong")
        found = json.loads(call("config", "check", "--json", code=1).stdout)
        assert (found["ok"], len(found["errors"])) == (False, 1)


class TestStart:
    def test_a_file_alone_starts_a_node_with_a_json_log(
        self, spawn: Spawn, tmp_path: Path, postgres_dsn: str, prefix: str
    ) -> None:
        (tmp_path / "oban.toml").write_text(
            f'dsn = "{postgres_dsn}"\nprefix = "{prefix}"\nimports = ["json"]\nnode = "from file"\n'
            'log_format = "json"\n[queues]\nidle = 1\n'
        )
        process = spawn("start", "--node", "n1")
        line = wait_for(process, "runs idle")
        process.terminate()
        end(process)
        assert process.returncode == 0
        # The line names uvloop if it is installed.
        message = json.loads(line)["message"]
        assert message.removesuffix(", on uvloop") == "node n1 runs idle"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "name the database with --dsn or OBAN_DSN, or in oban.toml or"),
            ('dsn = "postgresql:///x"', "name the queues with --queues or OBAN_QUEUES, or in"),
            (
                'dsn = "postgresql:///x"\nqueues = { a = 1 }',
                "name the modules with workers with --import or OBAN_IMPORTS, or in",
            ),
        ],
    )
    def test_start_names_missing_settings(
        self, call: Say, here: Path, content: str, message: str
    ) -> None:
        (here / "oban.toml").write_text(content)
        told = call("start", code=2).stderr
        assert message in " ".join(told.replace("│", " ").split())

    def test_start_lists_the_mistakes_of_all_sources(self, call: Say, here: Path) -> None:
        (here / "oban.toml").write_text("[queues]\na = 0\n")
        told = call("start", "--dsn", "mysql://h/d", "--log-format", "json", code=1).stderr
        assert told.count("\n") == 2
        assert "command line: dsn: the DSN must start with postgresql://" in told
        assert f"{here}/oban.toml: queues: the limit of queue 'a'" in told


def test_schema_uses_the_prefix_of_the_file(
    call: Say, here: Path, postgres_dsn: str, new_prefix: str
) -> None:
    (here / "oban.toml").write_text(f'dsn = "{postgres_dsn}"\nprefix = "{new_prefix}"\n')
    call("schema", "upgrade")
    assert "not installed" in call("schema", "current", "--prefix", "no_such").stdout
    assert "latest" in call("schema", "current", "--config", "oban.toml").stdout
