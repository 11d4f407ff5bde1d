"""Write the pages of the reference from the code: `python docs/generate.py`.

The pages are committed, so that they can be read without building them.
"""

import ast
import dataclasses
import enum
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from oban_sqla import Oban
from oban_sqla.config.oban_settings import RULES, ObanSettings
from oban_sqla.settings import DEFAULTS, PREFIX, SECRET
from oban_sqla.workers.function import FunctionOptions
from oban_sqla.workers.option import options_of, types_of
from oban_sqla.workers.options import JobOptions, SharedOptions, WorkerOptions
from oban_sqla.workers.worker import ClassOptions

REFERENCE = Path(__file__).parent / "reference"

_OPTIONS = """\
# Options

Options of a worker are keywords of its class, of `@worker` or of `@job`. A subclass takes them over
unless the table says otherwise. `None` stands for an option that is not given. A type checker knows
all of them: a misspelt option, or one of the wrong type, is an error.
"""

_SECTIONS = (
    (
        "Of a worker and of a single job",
        "A worker sets them for all its jobs. `new` and `enqueue` override them for one job.",
        SharedOptions,
        None,
    ),
    (
        "Of a single job",
        "Only `new` and `enqueue` take them.",
        JobOptions,
        SharedOptions,
    ),
    ("Of a worker", "Classes and functions take them.", WorkerOptions, SharedOptions),
    ("Of a class", "Only `Worker` and `@worker` take them.", ClassOptions, WorkerOptions),
    (
        "Of a function",
        "Only `@job` takes them, and `session=True`.",
        FunctionOptions,
        WorkerOptions,
    ),
)


def options() -> str:
    """The page about the options of workers and jobs."""
    return "\n".join([_OPTIONS, *_sections()])


def _sections() -> Iterator[str]:
    for title, lead, declared, without in _SECTIONS:
        known = options_of(without) if without else {}
        yield f"## {title}\n\n{lead}\n\n| option | type | default | |\n| --- | --- | --- | --- |"
        types = types_of(declared)
        for name, option in options_of(declared).items():
            if name not in known:
                default = "" if option.default in (None, (), {}) else f"`{option.default!r}`"
                says = option.says if option.inherited else f"{option.says} Not inherited."
                cells = (f"`{name}`", f"`{_shown(types[name])}`", default, says)
                yield f"| {' | '.join(map(_escaped, cells))} |"
        yield ""


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _shown(kind: Any) -> str:
    """A type as the tables show it: without modules, and without the `None` at its end."""
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(_shown(one) for one in get_args(kind) if one is not NoneType)
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return re.sub(r"\b(\w+\.)+(?=\w)", "", text)


_CLI = """\
# Command line

`pip install "oban-sqla[cli]"` installs `oban-sqla`. Exit codes are 0, 1 when something failed or
`doctor` found a problem, and 2 for a wrong command line. Options that you leave out are taken from
the [settings](settings.md).

"""


def cli() -> str:
    """The page about the commands, from their help."""
    command = [sys.executable, "-m", "typer", "oban_sqla.cli.app", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "oban-sqla"], capture_output=True, text=True, check=True
    )
    # The page already has a title.
    return _CLI + re.sub(r"\A# .*\n+", "", done.stdout).rstrip() + "\n"


_SETTINGS = """\
# Settings

A setting is an argument of `Oban`, a variable of the environment, or a line in `oban.toml` or in
`[tool.oban]` of `pyproject.toml`. Code and the command line override variables, and variables
override the file. All times are seconds. See [Running and deploying](../deploying.md).

| setting | variable | default | |
| --- | --- | --- | --- |
"""

_OTHER_SETTINGS = {
    "dsn": "The database: `postgresql://user:password@host/name`.",
    "engine": "Your engine instead of `dsn`, as an import path: `shop:engine`. It may be an"
    " `AsyncEngine` or an `async_sessionmaker` that is bound to one.",
    "session": "Your `async_sessionmaker`, which makes the sessions of workers, as an import path:"
    " `shop:Session`. If neither `dsn` nor `engine` is set, it names the database, too.",
    "imports": "Modules with workers, which `oban-sqla start` imports; not used by `Oban`.",
    "log_level": "`debug`, `info`, `warning` or `error`: of `oban-sqla start`.",
    "log_format": "`text` or `json`: of `oban-sqla start`.",
    "metrics": "Where `oban-sqla start` serves `/metrics`, `/health` and `/ready`: `:9100`, or"
    " `127.0.0.1:9100`.",
    "tracing": "Whether `oban-sqla start` sends traces by OTLP.",
}


def settings() -> str:
    """The page about the settings, from the arguments of `Oban`."""
    text = inspect.getdoc(Oban.__init__) or ""
    found = re.findall(r"^([a-z_]+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    said = {name: " ".join(words.split()) for name, words in found} | _OTHER_SETTINGS
    rows = []
    for name, default in DEFAULTS.items():
        shown = "" if default is None or name in SECRET else f"`{default!r}`"
        says = said[name][:1].upper() + said[name][1:]
        cells = (f"`{name}`", f"`{PREFIX}{name.upper()}`", shown, says)
        rows.append(f"| {' | '.join(map(_escaped, cells))} |\n")
    return _SETTINGS + "".join(rows)


# The title and the contents of each page: import paths, and headings.
_API: dict[str, tuple[str, str]] = {
    "jobs.md": (
        "Jobs",
        """
        oban_sqla:Job oban_sqla:Unique oban_sqla:Limit oban_sqla:Rate oban_sqla:JobState
        #Errors
        oban_sqla:ObanError oban_sqla:SchemaMissingError oban_sqla:PrivilegeMissingError
        oban_sqla:SchemaVersionError oban_sqla:InstanceNotFoundError oban_sqla:JobNotFoundError
        oban_sqla:QueueNotFoundError oban_sqla:UnknownWorkerError oban_sqla:UnknownModelError
        oban_sqla:RowMissingError oban_sqla:JobTimeoutError oban_sqla:UnreadableJobError
        oban_sqla:StandbyError
        oban_sqla:ConfigError
        """,
    ),
    "workers.md": (
        "Workers",
        """
        oban_sqla:Worker oban_sqla:worker oban_sqla:job oban_sqla:JobFunction
        oban_sqla.workers.with_options:WithOptions oban_sqla:current_job oban_sqla:running_job
        #Outcomes
        oban_sqla:Cancel oban_sqla:Snooze oban_sqla:Record oban_sqla:RetryAfter
        oban_sqla:RateLimited
        """,
    ),
    "workflows.md": (
        "Workflows",
        """
        oban_sqla:Workflow oban_sqla:Batch oban_sqla:Chain oban_sqla:current_workflow
        oban_sqla:From
        """,
    ),
    "oban.md": ("Oban", "oban_sqla:Oban oban_sqla:QueueInfo oban_sqla.limits.named_rate:NamedRate"),
    "events.md": (
        "Events",
        """
        oban_sqla.events: oban_sqla:ObanEvents oban_sqla.events:Enqueueing
        oban_sqla.events:EnqueueEvents
        #What_they_pass
        oban_sqla.events.data:*
        """,
    ),
    "migrations.md": (
        "Migrations and the embedded PostgreSQL",
        """
        oban_sqla.migrations: oban_sqla.migrations:upgrade oban_sqla.migrations:downgrade
        oban_sqla.migrations:current oban_sqla.migrations:missing oban_sqla.migrations:grant
        oban_sqla.migrations:create_args_index oban_sqla.migrations:drop_args_index
        #In_an_Alembic_migration
        oban_sqla.migrations:UpgradeObanOp.upgrade_oban
        oban_sqla.migrations:DowngradeObanOp.downgrade_oban
        oban_sqla.migrations:GrantObanOp.grant_oban
        oban_sqla.migrations:CreateObanArgsIndexOp.create_oban_args_index
        oban_sqla.migrations:DropObanArgsIndexOp.drop_oban_args_index
        #A_PostgreSQL_for_scripts_and_tests
        oban_sqla.embedded:embedded_postgres oban_sqla.embedded:EmbeddedPostgresError
        """,
    ),
    "telemetry.md": (
        "Telemetry",
        """
        #OpenTelemetry
        oban_sqla.contrib.opentelemetry: oban_sqla.contrib.opentelemetry:attach
        oban_sqla.contrib.opentelemetry:detach oban_sqla.contrib.opentelemetry:ObanInstrumentor
        #Prometheus
        oban_sqla.contrib.prometheus: oban_sqla.contrib.prometheus:attach
        oban_sqla.contrib.prometheus:detach oban_sqla.contrib.prometheus:exposed
        oban_sqla.contrib.endpoint:serving
        #Sentry
        oban_sqla.contrib.sentry: oban_sqla.contrib.sentry:ObanIntegration
        #Logs
        oban_sqla.contrib.json_log:JsonFormatter
        #How_a_node_does
        oban_sqla.runtime.vitals:Vitals oban_sqla.runtime.vitals:QueueVitals
        """,
    ),
    "dashboard.md": (
        "Dashboard",
        """
        oban_sqla.web:dashboard oban_sqla.web:Access
        """,
    ),
    "testing.md": (
        "Testing",
        """
        oban_sqla.testing:all_enqueued oban_sqla.testing:assert_enqueued
        oban_sqla.testing:refute_enqueued oban_sqla.testing:drain_queue oban_sqla.testing:inline
        oban_sqla.testing:process_job oban_sqla.testing:frozen_time
        oban_sqla.testing.factory:JobFactory
        """,
    ),
}


_LEADS = {
    "telemetry.md": ["What each part is for is in [observability](../observability.md).\n"],
}


def api(page: str) -> str:
    """A page about objects, from their source, so that every version of Python writes the same."""
    title, plan = _API[page]
    lead = _LEADS.get(page, [])
    return "\n".join([f"# {title}\n", *lead, *(p for item in plan.split() for p in _item(item))])


def _item(item: str) -> Iterator[str]:
    if item.startswith("#"):
        yield f"## {item[1:].replace('_', ' ')}\n"
        return
    module, _, path = item.partition(":")
    subject: Any = import_module(module)
    if path == "*":
        yield from _dataclasses(subject)
        return
    for name in filter(None, path.split(".")):
        subject = getattr(subject, name)
    if inspect.ismodule(subject):
        yield _prose(inspect.getdoc(subject))
    elif isinstance(subject, type):
        yield from _class(subject)
    else:
        yield from _function(path.rpartition(".")[2], _tree(subject), "##")


def _dataclasses(module: Any) -> Iterator[str]:
    for one in vars(module).values():
        if getattr(one, "__module__", None) == module.__name__ and dataclasses.is_dataclass(one):
            yield from _class(one)


def _class(cls: type) -> Iterator[str]:
    yield f"## `{cls.__name__}`\n"
    if issubclass(cls, BaseException):
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        yield f"An exception, a subclass of {bases}.\n"
    # A dataclass without a docstring has its signature as one.
    said = cls.__doc__ or ""
    yield _prose("" if said.startswith(f"{cls.__name__}(") else said)
    seen = {"__init__"}
    for base in cls.__mro__:
        if not base.__module__.startswith("oban_sqla"):
            continue
        try:
            body = _tree(base).body
        except OSError:
            continue  # the object was made by a call
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__" and base is cls:
                yield from _function(cls.__name__, node, "###")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name not in seen and not node.name.startswith("_") and not _is_stub(node):
                    seen.add(node.name)
                    yield from _function(node.name, node, "###")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if node.target.id not in seen and not node.target.id.startswith("_"):
                    seen.add(node.target.id)
                    said = _prose(_text(following)).strip()
                    kind = ast.unparse(node.annotation)
                    yield f"- `{node.target.id}: {kind}`{': ' if said else ''}{said}\n"
            elif isinstance(node, ast.Assign) and issubclass(cls, enum.Enum):
                yield f"- `{ast.unparse(node)}`\n"


def _function(name: str, node: Any, level: str) -> Iterator[str]:
    decorators = {ast.unparse(one) for one in node.decorator_list}
    if "property" in decorators:
        yield f"{level} `{name}`\n"
        kind = ast.unparse(node.returns) if node.returns else "object"
        yield f"```py\n{name}: {kind}\n```\n"
    else:
        yield f"{level} `{name}()`\n"
        arguments = node.args
        for group in (arguments.posonlyargs, arguments.args):
            if group and group[0].arg in ("self", "cls"):
                del group[0]
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
        yield f"```py\n{prefix}def {name}({_arguments(arguments)}){returns}\n```\n"
    yield _prose(ast.get_docstring(node))


_SETTINGS_OF_OBAN = "**settings: Unpack[ObanSettings]"


def _settings_of_oban() -> Iterator[str]:
    for node in _tree(ObanSettings).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Subscript):
            name = ast.unparse(node.target)
            kind, _ = ast.unparse(node.annotation.slice).strip("()").split(", Rule(", 1)
            yield f"{name}: {kind}={RULES[name].default!r}"


def _arguments(arguments: ast.arguments) -> str:
    text = ast.unparse(arguments).replace(_SETTINGS_OF_OBAN, ", ".join(["*", *_settings_of_oban()]))
    # `events/targets.py` imports the module of the events' data.
    text = re.sub(r"\bdata\.(?=[A-Z])", "", text)
    if len(text) < 70:
        return re.sub(r"(\w+: [^=,]+)=", r"\1 = ", text)
    # Each argument on a line of its own: commas within brackets separate none.
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    spaced = (re.sub(r"^(\w+: [^=]+)=", r"\1 = ", part) for part in parts)
    return "".join(f"\n    {part}," for part in spaced) + "\n"


def _is_stub(node: Any) -> bool:
    return any("overload" in ast.unparse(one) for one in node.decorator_list)


def _tree(subject: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(subject)))).body[0]


def _text(node: Any) -> str | None:
    """The docstring below an attribute."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value))
    return None


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: its arguments are a list, and its examples are blocks."""
    if not docstring:
        return ""
    lines = inspect.cleandoc(docstring).splitlines()
    told: list[str] = []
    example = section = False
    for number, line in enumerate(lines):
        if example and line.strip() and not line.startswith("    "):
            told[:] = [*_without_blank_end(told), "```", ""]
            example = False
        if example:
            told.append(line[4:])
        elif line.endswith("::"):
            told += [line[:-1], "", "```py"]
            example = True
        else:
            found = re.fullmatch(r"(    )?([a-z_]+): (\S.*)", line)
            if found and bool(found[1]) is not section:
                found = None  # the second line of an argument
            begins = number == 0 or not lines[number - 1].strip() or section or _in_list(told)
            section = section and (not line or line.startswith("    "))
            if line in ("Args:", "Raises:"):
                told += ["", {"Args:": "Arguments:", "Raises:": "Errors:"}[line], ""]
                section = True
            elif found and begins:
                told.append(f"- `{found[2]}`: {found[3]}")
            else:
                told.append(
                    line.strip() if not _in_list(told) or not line.strip() else f"  {line.strip()}"
                )
    if example:
        told = [*_without_blank_end(told), "```"]
    return re.sub(r"```py\n\n+", "```py\n", "\n".join(told)).strip() + "\n"


def _in_list(told: list[str]) -> bool:
    """Whether the last line belongs to a list of arguments."""
    for line in reversed(told):
        if line.startswith("- `"):
            return True
        if not line.startswith("  "):
            return False
    return False


def _without_blank_end(told: list[str]) -> list[str]:
    while told and not told[-1].strip():
        told = told[:-1]
    return told


PAGES: dict[str, Any] = {
    "options.md": options,
    "cli.md": cli,
    "settings.md": settings,
    **{page: partial(api, page) for page in _API},
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
