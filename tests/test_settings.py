"""Settings: the first source that has a setting wins. Each mistake is reported with its source."""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import ConfigError, Oban
from oban_sqla.runtime.pool import capacity
from oban_sqla.settings import DEFAULTS, SECRET, load, parse_queues


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without variables of the environment."""
    for variable in os.environ:
        if variable.startswith("OBAN_") and not variable.startswith("OBAN_TEST_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaints(path: Path | None = None, **given: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(path, **given)
    return [complaint for _, complaint in raised.value.complaints]


class TestEverySetting:
    def test_every_argument_of_oban_is_a_setting_with_the_same_default(self) -> None:
        parameters = inspect.signature(Oban.__init__).parameters
        arguments = {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in ("self", "engine")
        }
        assert arguments.items() <= DEFAULTS.items()
        others = {"dsn", "engine", "session", "imports", "log_level", "log_format"}
        others |= {"metrics", "tracing"}
        assert DEFAULTS.keys() - arguments.keys() == others

    def test_every_setting_has_a_default(self) -> None:
        settings = load()
        assert {name: found.value for name, found in settings.found.items()} == DEFAULTS
        assert {found.source for found in settings.found.values()} == {"default"}
        assert settings.arguments == {}
        assert settings.notes == ()

    # One setting of each kind: its text in a variable, and its value.
    WRITTEN = {  # noqa: RUF012
        "dsn": ("postgresql://localhost/shop", "postgresql://localhost/shop"),
        "engine": ("shop:engine", "shop:engine"),
        "session": ("shop.db:Session", "shop.db:Session"),
        "queues": ("default:10, mailers:20", {"default": 10, "mailers": 20}),
        "name": ("7", "7"),
        "node": ("web-1", "web-1"),
        "prefix": ("null", "null"),
        "shutdown_grace_period": ("2.5", 2.5),
        "notify": ("poll", "poll"),
        "listen_dsn": ("host=direct", "host=direct"),
        "poll_interval": ("3", 3.0),
        "fallback_interval": ("1e1", 10.0),
        "heartbeat_expiry": ("5", 5.0),
        "rescue_after": ("60", 60.0),
        "leadership": ("off", False),
        "timezone": ("Europe/Berlin", "Europe/Berlin"),
        "retention": ('{"completed": 60, "discarded": null}', {"completed": 60, "discarded": None}),
        "stage_batch": ("7", 7),
        "pool_size": ("25", 25),
        "claim_ahead": ("0", 0.0),
        "imports": ("app.workers, app.more", ["app.workers", "app.more"]),
        "log_level": ("DEBUG", "debug"),
        "log_format": ("json", "json"),
        "metrics": (":9100", ":9100"),
        "tracing": ("true", True),
    }

    def test_every_setting_is_listed_here(self) -> None:
        assert self.WRITTEN.keys() == DEFAULTS.keys()

    @pytest.mark.parametrize("name", WRITTEN)
    def test_a_variable_sets_each_setting(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        written, meant = self.WRITTEN[name]
        monkeypatch.setenv(f"OBAN_{name.upper()}", written)
        found = load().found[name]
        assert found.value == meant
        assert type(found.value) is type(meant)
        assert found.source == f"OBAN_{name.upper()}"

    @pytest.mark.parametrize("name", WRITTEN)
    def test_code_sets_each_setting(self, name: str) -> None:
        _, meant = self.WRITTEN[name]
        found = load(**{name: meant}).found[name]
        assert (found.value, found.source) == (meant, "given in code")


class TestVariables:
    @pytest.mark.parametrize(
        ("variable", "written", "meant"),
        [
            ("OBAN_QUEUES", '{"a": {"limit": 3}}', {"a": {"limit": 3}}),
            ("OBAN_QUEUES", "billing:eu:3", {"billing:eu": 3}),
            ("OBAN_IMPORTS", '["app.a", "app.b"]', ["app.a", "app.b"]),
            ("OBAN_RETENTION", "3600", 3600),
            ("OBAN_RETENTION", "inf", None),
            ("OBAN_LEADERSHIP", "1", True),
        ],
    )
    def test_a_variable_may_be_written_in_several_ways(
        self, variable: str, written: str, meant: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, written)
        assert load().found[variable.removeprefix("OBAN_").lower()].value == meant

    @pytest.mark.parametrize(
        ("variable", "written", "complaint"),
        [
            ("OBAN_QUEUES", "default", "'default' is not a queue with its limit, like default:10"),
            ("OBAN_QUEUES", '{"a": 1', "is not JSON: Expecting"),
            ("OBAN_QUEUES", "[1]", "queues must map names to limits"),
            ("OBAN_STAGE_BATCH", "1.5", "must be an integer from 1 to 2147483647, not '1.5'"),
            ("OBAN_POLL_INTERVAL", "soon", "must be seconds, more than 0, not 'soon'"),
            ("OBAN_LEADERSHIP", "maybe", "leadership must be True or False, not 'maybe'"),
            ("OBAN_RETENTION", "{", "retention must be seconds"),
            ("OBAN_DSN", "mysql://localhost/a", "the DSN must start with postgresql://"),
            ("OBAN_POOL_SIZE", "0", "pool_size must be an integer from 1 to 2147483647, not 0"),
            ("OBAN_ENGINE", "shop", "engine must be an import path like 'shop:engine', not 'shop'"),
            ("OBAN_SESSION", "a/b.py:S", "session must be an import path like 'shop:engine'"),
            ("OBAN_LOG_FORMAT", "xml", "log_format must be one of text, json, not 'xml'"),
            (
                "OBAN_METRICS",
                "9100x",
                "metrics must be an address to listen at: '9100x' has no port",
            ),
            ("OBAN_TRACING", "perhaps", "tracing must be true or false, not 'perhaps'"),
            ("OBAN_IMPORTS", "a,,b", "imports must be a list of modules"),
        ],
    )
    def test_a_mistake_is_reported_with_its_variable(
        self, variable: str, written: str, complaint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, written)
        (told,) = complaints()
        assert told.startswith(f"{variable}: ")
        assert complaint in told

    def test_an_empty_variable_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OBAN_DSN", "")
        monkeypatch.setenv("OBAN_QUEUES", "")
        assert load().arguments == {}

    def test_a_misspelt_variable_is_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OBAN_QUEUE", "default:1")
        monkeypatch.setenv("OBAN_DISPATCHER", "own")  # a variable of another program
        assert load().notes == ("OBAN_QUEUE is not a setting; did you mean OBAN_QUEUES?",)


class TestFiles:
    def test_oban_toml_sets_settings(self, directory: Path) -> None:
        (directory / "oban.toml").write_text(
            """
            dsn = "postgresql://localhost/shop"
            imports = ["app.workers"]
            poll_interval = 2

            [queues]
            default = 10
            mailers = {limit = 20, paused = true}
            [queues.sync]
            limit = 20
            global_limit = {allowed = 2, partition = {fields = ["args"], keys = ["account_id"]}}

            [retention]
            completed = 60
            discarded = inf
            workers = {"app.Mail" = {completed = inf}}
            """
        )
        settings = load()
        assert settings.dsn == "postgresql://localhost/shop"
        assert settings.imports == ("app.workers",)
        assert settings.arguments == {
            "poll_interval": 2,
            "queues": {
                "default": 10,
                "mailers": {"limit": 20, "paused": True},
                "sync": {
                    "limit": 20,
                    "global_limit": {
                        "allowed": 2,
                        "partition": {"fields": ["args"], "keys": ["account_id"]},
                    },
                },
            },
            "retention": {
                "completed": 60,
                "discarded": None,
                "workers": {"app.Mail": {"completed": None}},
            },
        }
        assert settings.found["queues"].source == str(directory / "oban.toml")

    def test_a_table_in_pyproject_toml_sets_settings(self, directory: Path) -> None:
        (directory / "pyproject.toml").write_text("[tool.oban]\nprefix = 'jobs'\n")
        found = load().found["prefix"]
        assert (found.value, found.source) == ("jobs", f"{directory}/pyproject.toml [tool.oban]")

    @pytest.mark.parametrize("content", ["", "[tool.other]\na = 1\n", "tool = 1\n"])
    def test_a_pyproject_toml_without_our_table_is_ignored(
        self, directory: Path, content: str
    ) -> None:
        (directory / "pyproject.toml").write_text(content)
        assert load().arguments == {}

    def test_oban_toml_precedes_pyproject_toml_with_a_note(self, directory: Path) -> None:
        (directory / "oban.toml").write_text("prefix = 'a'\n")
        (directory / "pyproject.toml").write_text("[tool.oban]\nprefix = 'b'\nnode = 'n'\n")
        settings = load()
        assert settings.arguments == {"prefix": "a"}
        (note,) = settings.notes
        assert note.startswith(f"settings come from {directory}/oban.toml; [tool.oban] in ")

    def test_a_given_path_is_the_only_file_read(self, directory: Path) -> None:
        (directory / "oban.toml").write_text("prefix = 'a'\nnode = 'n'\n")
        (directory / "other.toml").write_text("prefix = 'b'\n")
        assert load(directory / "other.toml").arguments == {"prefix": "b"}

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("a = 1\nqueues = {\n", r"oban\.toml: .*line 2"),
            (b"name = '\xff'", r"oban\.toml: .*utf-8"),
            ("poll_interval = '1'", r"oban\.toml: poll_interval must be seconds.* not '1'"),
            ("queues = 'default:10'", r"oban\.toml: queues must map names to limits"),
            ("[queues]\na = 0\n", r"oban\.toml: queues: the limit of queue 'a'.* not 0"),
            ("quues = 1", r"oban\.toml: there is no setting 'quues'; did you mean 'queues'\?"),
            (
                "colour = 1",
                r"oban\.toml: there is no setting 'colour'; there are dsn, engine, session, ",
            ),
            ("imports = 'app'", r"oban\.toml: imports must be a list of modules.* not 'app'"),
        ],
    )
    def test_a_mistake_is_reported_with_its_file(
        self, directory: Path, content: str | bytes, complaint: str
    ) -> None:
        raw = content.encode() if isinstance(content, str) else content
        (directory / "oban.toml").write_bytes(raw)
        with pytest.raises(ConfigError, match=complaint):
            load()

    def test_a_value_in_place_of_the_table_is_refused(self, directory: Path) -> None:
        (directory / "pyproject.toml").write_text("[tool]\noban = 1\n")
        assert complaints() == [f"{directory}/pyproject.toml [tool.oban] must be a table, not 1"]

    def test_a_missing_file_is_refused(self, directory: Path) -> None:
        assert complaints(directory / "no.toml") == [f"{directory}/no.toml: there is no such file"]
        assert complaints(directory) == [f"{directory}: there is no such file"]


class TestPrecedence:
    @pytest.fixture(autouse=True)
    def everywhere(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "oban.toml").write_text("[queues]\na = 1\nb = 1\n")
        monkeypatch.setenv("OBAN_QUEUES", "c:1")
        monkeypatch.setenv("OBAN_NODE", "from-env")

    def test_code_precedes_variables_and_variables_precede_the_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert load(queues={"d": 1}).arguments["queues"] == {"d": 1}
        assert load().arguments["queues"] == {"c": 1}
        assert load().arguments["node"] == "from-env"
        monkeypatch.delenv("OBAN_QUEUES")
        assert load().arguments["queues"] == {"a": 1, "b": 1}

    def test_a_variable_may_name_another_database_than_the_file(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (directory / "oban.toml").write_text("dsn = 'postgresql://localhost/production'\n")
        monkeypatch.setenv("OBAN_DSN", "postgresql://localhost/test")
        assert load().dsn == "postgresql://localhost/test"
        assert load(dsn="postgresql://localhost/mine").dsn == "postgresql://localhost/mine"

    def test_the_first_source_decides_how_the_database_is_named(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (directory / "oban.toml").write_text("engine = 'shop:engine'\n")
        monkeypatch.setenv("OBAN_DSN", "postgresql://localhost/test")
        assert (load().dsn, load().found["engine"].value) == ("postgresql://localhost/test", None)
        given = load(engine="shop:other")
        assert (given.dsn, given.found["engine"].value) == (None, "shop:other")

    def test_a_none_given_in_code_is_a_value(self) -> None:
        assert load(node=None).arguments["node"] is None

    def test_an_overridden_value_is_not_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OBAN_QUEUES", "wrong")
        assert load(queues={"a": 1}).arguments["queues"] == {"a": 1}


def test_all_mistakes_are_reported_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "oban.toml").write_text("rescue_after = -1\nquue = 1\n")
    monkeypatch.setenv("OBAN_STAGE_BATCH", "0")
    told = complaints(prefix="", log_level="loud", poll_intervall=1)
    assert len(told) == 6
    for beginning in (
        "given in code: prefix must be",
        "given in code: log_level must be one of",
        "given in code: there is no setting 'poll_intervall'; did you mean 'poll_interval'?",
        f"{directory}/oban.toml: rescue_after must be",
        f"{directory}/oban.toml: there is no setting 'quue'; did you mean 'queues'?",
        "OBAN_STAGE_BATCH: stage_batch must be",
    ):
        assert any(complaint.startswith(beginning) for complaint in told), (beginning, told)


@pytest.mark.parametrize("value", ["host=a password=secret", "mysql://u:secret@h/d", 5])
def test_passwords_are_not_shown(value: Any, directory: Path) -> None:
    (directory / "oban.toml").write_text("dns = 'postgresql://u:secret@h/d'\n")
    told = " ".join(complaints(dsn=value, listen_dsn="secret", notify="poll"))
    assert "secret" not in told
    for name in SECRET:
        (directory / "oban.toml").write_text(f"{name} = 'postgresql://u:secret@h/d'\n")
        assert load().found[name].shown == "(hidden)"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("default", "'default' is not a queue"),
        (":10", "':10' is not a queue"),
        ("a:0", "'a:0' is not a queue"),
        ("a:1,,b:2", "'' is not a queue"),
        ("a:1,a:2", "queue 'a' is named twice"),
    ],
)
def test_queues_in_a_wrong_form_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_queues(text)


class TestImportPaths:
    """The settings `engine` and `session`."""

    SHOP = """
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

class OwnSession(AsyncSession): ...

class db:
    engine = create_async_engine("postgresql+psycopg://localhost:1/shop", pool_size=3)

Session = async_sessionmaker(db.engine, class_=OwnSession, info={"own": True})
Unbound = async_sessionmaker(class_=OwnSession)
number = 5
"""

    @pytest.fixture(autouse=True)
    def shop(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        (directory / "pathshop.py").write_text(self.SHOP)
        (directory / "pathbroken.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(directory)
        yield importlib.import_module("pathshop")
        sys.modules.pop("pathshop", None)

    def test_a_path_may_name_an_engine(self, shop: Any) -> None:
        database = Oban.from_config(path=self.file("engine = 'pathshop:db.engine'"))._database
        assert database.engine is shop.db.engine

    def file(self, content: str) -> Path:
        path = Path.cwd() / "paths.toml"
        path.write_text(content)
        return path

    @pytest.mark.parametrize("more", ["", "engine = 'pathshop:db.engine'"])
    def test_a_path_may_name_a_bound_session(self, shop: Any, more: str) -> None:
        path = self.file(f"session = 'pathshop:Session'\n{more}")
        database = Oban.from_config(path=path)._database
        assert database.engine is shop.db.engine
        session = database.worker_session()
        assert (type(session), session.info) == (shop.OwnSession, {"own": True})

    @pytest.mark.parametrize("name", ["Session", "Unbound"])
    async def test_a_session_of_another_database_uses_the_configured_one(
        self, shop: Any, name: str
    ) -> None:
        path = self.file(f"dsn = 'postgresql://localhost:1/b'\nsession = 'pathshop:{name}'\n")
        oban = Oban.from_config(path=path, queues={"p": 50})
        session = oban._database.worker_session()
        assert isinstance(session, shop.OwnSession)
        assert isinstance(session.bind, AsyncEngine)
        assert session.bind.pool is oban._database.engine.pool
        assert oban._database.engine.url.database == "b"
        assert capacity(oban._database.engine) == 55
        await oban.stop()

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("engine = 'pathshop:nothing'", "engine: can't import 'pathshop:nothing': Attribute"),
            ("engine = 'no_shop:engine'", "engine: can't import 'no_shop:engine': No module"),
            ("engine = 'pathbroken:engine'", "'pathbroken:engine': ZeroDivisionError: division"),
            ("engine = 'pathshop:number'", "must be an AsyncEngine or an async_sessionmaker, not"),
            ("session = 'pathshop:db.engine'", "must be an async_sessionmaker, not AsyncEngine"),
            ("session = 'pathshop:Unbound'", "must be bound to an AsyncEngine"),
            ("engine = 'a:b'\ndsn = 'postgresql://localhost/b'", "the database is named twice"),
            ("engine = 'pathshop:db.engine'\npool_size = 5", "leave pool_size out, or set dsn"),
        ],
    )
    def test_an_invalid_path_is_refused(self, content: str, complaint: str) -> None:
        with pytest.raises((ConfigError, TypeError), match=complaint):
            Oban.from_config(path=self.file(content))


class TestFromConfig:
    async def test_an_instance_is_made_as_configured(self, directory: Path) -> None:
        (directory / "oban.toml").write_text(
            "dsn = 'postgresql://localhost:1/shop'\nname = 'Shop'\nnode = 'n1'\nprefix = 'jobs'\n"
        )
        oban = Oban.from_config(node="n2")
        assert (oban.name, oban.node, oban.prefix) == ("Shop", "n2", "jobs")
        await oban.stop()

    async def test_an_instance_is_made_on_a_given_engine(
        self, engine: AsyncEngine, directory: Path
    ) -> None:
        (directory / "settings.toml").write_text("[queues]\ndefault = 3\n")
        async with Oban.from_config(engine, path=directory / "settings.toml") as oban:
            assert repr(oban) == f"<Oban 'Oban' on {oban.node}>"

    async def test_the_pool_is_as_large_as_the_queues_need(self) -> None:
        dsn = "postgresql://localhost:1/shop"
        for given, size in [
            ({"queues": {"p": 20, "q": {"limit": 3}}}, 20 + 3 + 5),
            ({"queues": {"p": 20}, "pool_size": 7}, 7),
            ({"pool_size": 7}, 7),
            ({}, 15),
        ]:
            oban = Oban.from_config(dsn=dsn, **given)
            assert capacity(oban._database.engine) == size, given
            await oban.stop()

    def test_an_engine_keeps_its_pool(self, engine: AsyncEngine, directory: Path) -> None:
        (directory / "oban.toml").write_text("pool_size = 7\n")
        assert Oban.from_config(engine)._database.engine is engine
        with pytest.raises(ConfigError, match="pool_size is for a URL: your engine has a pool"):
            Oban(engine, pool_size=7)

    def test_a_missing_database_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="pass an engine or dsn=, or set dsn or OBAN_DSN"):
            Oban.from_config()
