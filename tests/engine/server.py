"""A real Redis or Valkey with the engine, for tests: started, killed, restarted, replicated, stopped.

``TALLYSTICK_ENGINE_SANITIZED=1`` takes the engine that checks memory and undefined behaviour;
``REDIS_SERVER`` names another server than the one on the PATH.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError  # noqa: A004
from redis.retry import Retry

from shard_node.agent.redis_process import free_port
from shard_node.engine.loading import engine_path

START_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02
HOST: Final = "127.0.0.1"
# Whatever kills the tests, their servers end with them.
_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")

# Written before each answer, as in production, but not synced: these tests kill processes, not machines.
_SETTINGS: Final = """\
bind 127.0.0.1
port {port}
dir "{folder}"
appendonly yes
appendfsync no
auto-aof-rewrite-percentage 0
save ""
enable-debug-command yes
repl-diskless-sync-delay 0
loadmodule "{engine}" {arguments}
{more}
"""


class EngineServer:
    """One server, its data in ``folder``. ``manual_clock`` makes time stand still until ``set_clock``.

    ``sanitized`` takes the engine with checks in any case; ``more`` are further lines of settings.
    """

    def __init__(
        self, folder: Path, *, manual_clock: bool = False, sanitized: bool = False, more: str = ""
    ) -> None:
        self.folder = folder
        self.port = free_port(HOST)
        self.sanitized = sanitized or os.environ.get("TALLYSTICK_ENGINE_SANITIZED") == "1"
        # The engine that it loads when it starts.
        self.engine = engine_path(sanitized=self.sanitized)
        self._arguments = "clock manual" if manual_clock else ""
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        # No retries: a command that is sent twice would hide what its first answer was.
        self.redis = Redis(HOST, self.port, protocol=3, retry=Retry(NoBackoff(), 0), socket_timeout=30)

    @property
    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the server answers, its data read in; raises RuntimeError when it ends instead."""
        self.launch()
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended while starting:\n{self.log[-4000:]}")
            try:
                self.redis.ping()
            except (ConnectionError, BusyLoadingError, TimeoutError):
                time.sleep(POLL_SECONDS)
            else:
                return
        raise RuntimeError(f"the server does not answer:\n{self.log[-4000:]}")

    def launch(self) -> None:
        """Starts the process, and does not wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "redis.conf"
        configuration.write_text(
            _SETTINGS.format(
                port=self.port,
                folder=self.folder,
                engine=self.engine,
                arguments=self._arguments,
                more=self._more,
            )
        )
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [*_WITH_PARENT, _program(), str(configuration)],
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,
            )

    def ended(self) -> int:
        """Waits until the process ends by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(START_SECONDS)

    def stop(self) -> None:
        """Ends the server as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server without warning."""
        self._end(signal.SIGKILL)

    def restart(self, *, killed: bool = False) -> None:
        """Ends the server and starts it again on what is on its disk."""
        self._end(signal.SIGKILL if killed else signal.SIGTERM)
        self.start()

    def rewrite(self) -> None:
        """Rewrites the append-only file, and returns when the new one is in use; raises when that fails."""
        self.redis.bgrewriteaof()
        self.rewritten()

    def rewritten(self) -> None:
        """Returns when no rewrite of the append-only file is pending; raises when the last one failed.

        A replica begins one when it has loaded its primary's data, and until then its own file holds nothing.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            info = self.redis.info("persistence")
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                if info["aof_last_bgrewrite_status"] != "ok":
                    raise RuntimeError(f"the append-only file was not rewritten:\n{self.log[-4000:]}")
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError("the append-only file is still being rewritten")

    def follow(self, primary: EngineServer) -> None:
        """Becomes a replica; returns when it, and its own log, have all that the primary had written."""
        self.redis.replicaof(HOST, str(primary.port))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.redis.info("replication").get("master_link_status") == "up":
                self.caught_up(primary)
                # Until its first log is written it does not even end.
                self.rewritten()
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the replica does not catch up:\n{self.log[-4000:]}")

    def caught_up(self, primary: EngineServer) -> None:
        """Returns when this replica, or replica of a replica, has applied all that was written until now."""
        written = primary.redis.info("replication")["master_repl_offset"]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.redis.info("replication").get("slave_repl_offset", 0) >= written:
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the replica does not catch up:\n{self.log[-4000:]}")

    def confirmed(self, replicas: int = 1) -> None:
        """Returns when so many replicas have all that was written until now."""
        # WAIT covers what its own connection wrote: so one more write, which comes after all others.
        with self.redis.client() as connection:
            connection.set("mark", 1)
            if connection.wait(replicas, int(START_SECONDS * 1000)) < replicas:
                raise RuntimeError("a replica does not confirm")

    def set_clock(self, now_ms: int) -> None:
        """What a manual clock shows from now on."""
        self.redis.execute_command("tallystick.clock", now_ms * 1000)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self.redis.connection_pool.disconnect()
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
        self._process = None

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.sanitized:
            # The server itself is not built with checks: the library must come before its allocator. What the
            # server leaves to the end of the process is no leak of the engine's.
            found = [_library(name) for name in ("libasan.so", "libubsan.so")]
            environment["LD_PRELOAD"] = ":".join(found)
            environment["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1:detect_odr_violation=0"
            environment["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
        return environment


def _program() -> str:
    named = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    assert named, "no redis-server on the PATH"
    return named


def _library(name: str) -> str:
    done = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()
