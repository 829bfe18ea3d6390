"""The Redis server beside a shard node: its settings, its start, its watch and its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from shard_node.agent.compatibility import require_engine_on, server_program, shard_engine, why_ended
from shard_node.agent.redis_settings import settings
from shard_node.client import connect, disconnect
from shard_node.errors import ShardNodeError, ShardUnavailableError
from shard_node.redis_files import CONFIGURATION, PID_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

# A large append-only file takes a while to read in.
LOAD_TIMEOUT_SECONDS = 600.0
STOP_TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.05
# A Redis that is there answers within this, or counts as one that cannot be adopted yet.
ADOPT_TIMEOUT_SECONDS = 1.0
# How long a data folder may be in use by a Redis that does not answer. The rewrite of the append-only
# file that a killed Redis left behind ends by itself soon; so does the start of a Redis.
FOLDER_TIMEOUT_SECONDS = 10.0

log = structlog.get_logger(__name__)


def free_port(host: str) -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class RedisProcess:
    """Starts a Redis on ``data``, or adopts the one that runs there already.

    An agent's death does not take its Redis along; the next agent finds it by the port in its settings
    and makes sure, by the folder it serves, that it is the right one.

    Two Redis servers must never write one append-only file. So the one that is launched inherits a
    locked file: the lock is held for exactly as long as that Redis or a child of it lives, whatever
    becomes of its agent, and nobody launches without it.
    """

    def __init__(self, data: Path, host: str, port: int | None, max_memory_bytes: int) -> None:
        self._data = data
        self._host = host
        self._port = port
        self._max_memory_bytes = max_memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        # The log's size when this server was started or adopted.
        self._log_start = 0
        self.pid = 0
        self.adopted = False

    @property
    def address(self) -> str:
        """host:port it serves on, once started."""
        return f"{self._host}:{self._port}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._data / "redis.log"

    @property
    def _pid_file(self) -> Path:
        return self._data / PID_FILE

    async def start(self) -> None:
        """Returns when Redis answers, its data read in.

        Raises ShardUnavailableError otherwise; IncompatibleError when server, engine and data do not fit
        together, and then a Redis that was started for it is ended.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FOLDER_TIMEOUT_SECONDS
        while not await self._adopt():
            with self._lock() as lock:
                if lock is not None:
                    self._choose_port()
                    await self._launch(lock)
                    break
            if loop.time() > deadline:
                raise ShardUnavailableError(
                    f"a Redis that does not answer still uses {self._data.resolve()}: wait until it answers, "
                    f"or end it (fuser {self._lock_file.resolve()} tells its process id)"
                )
            await asyncio.sleep(POLL_SECONDS)
        await self._ready()
        await self._require_engine()

    async def _require_engine(self) -> None:
        client = connect(self.address)
        try:
            await require_engine_on(client, self._data, self.pid)
        except ShardNodeError:
            if not self.adopted:
                await self.stop()
            raise
        finally:
            await disconnect(client)

    def _choose_port(self) -> None:
        """The port that was asked for, else that of the last start: never another one in silence."""
        wanted = self._port or self._remembered_port()
        if wanted is not None and not self._is_free(wanted):
            raise ShardUnavailableError(f"port {wanted} of this Redis is held by another program")
        self._port = wanted or free_port(self._host)

    @property
    def _lock_file(self) -> Path:
        return self._data / "lock"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int | None]:
        """The locked file, to be inherited; None while a Redis has it. Here it is closed on leaving."""
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield lock
        finally:
            os.close(lock)

    async def wait(self) -> None:
        """Returns when the process has ended."""
        if self._process is not None:
            await self._process.wait()
            return
        while _alive(self.pid):  # noqa: ASYNC110
            # Not our child: the kernel tells nobody but its parent.
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Ends Redis: everything acknowledged is on disk already, so SIGTERM is enough."""
        if not self.pid or not _alive(self.pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), STOP_TIMEOUT_SECONDS)
        except TimeoutError:
            log.warning("redis does not end, killing it", redis_pid=self.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self.wait()
        self._pid_file.unlink(missing_ok=True)

    async def _launch(self, lock: int) -> None:
        program = await asyncio.to_thread(server_program)
        config = self._data / CONFIGURATION
        config.write_text(await self._settings())
        self._log_start = self._log_size()
        output = self.log.open("ab")
        try:
            # A session of its own: a Ctrl-C meant for the agent must not reach Redis first.
            self._process = await asyncio.create_subprocess_exec(
                program,
                str(config.resolve()),
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lock,),
            )
        finally:
            output.close()
        self.pid, self.adopted = self._process.pid, False
        self._pid_file.write_text(f"{self.pid} {self._port}\n")
        log.info("redis started", redis_pid=self.pid, address=self.address)

    async def _settings(self) -> str:
        assert self._port is not None  # noqa: S101
        engine = await asyncio.to_thread(shard_engine)
        return settings(self._host, self._port, self._data, engine, self._max_memory_bytes)

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    async def _adopt(self) -> bool:
        """Whether a Redis serves our data. Its settings are written before it starts, by who has the lock."""
        port = self._remembered_port()
        if port is None:
            return False
        client = connect(f"{self._host}:{port}", timeout_seconds=ADOPT_TIMEOUT_SECONDS)
        try:
            folder = str((await client.config_get("dir"))["dir"])
            pid = int((await client.info("server"))["process_id"])
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
        if Path(folder) != self._data.resolve() or not _alive(pid):
            return False
        self._port, self.pid, self._process, self.adopted = port, pid, None, True
        self._log_start = self._log_size()
        # Its agent may have ended before it wrote this.
        self._pid_file.write_text(f"{pid} {port}\n")
        log.info("redis adopted", redis_pid=pid, address=self.address)
        return True

    async def _ready(self) -> None:
        client = connect(self.address)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_SECONDS):
                while True:
                    if not _alive(self.pid) or (self._process and self._process.returncode is not None):
                        raise why_ended(self._log_since_start(), self._data)
                    try:
                        if await client.ping():
                            return
                    except (RedisError, OSError):
                        await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise ShardUnavailableError(f"redis at {self.address} is not ready in time") from error
        finally:
            await client.aclose()

    def _log_since_start(self) -> str:
        with self.log.open(errors="replace") as log:
            log.seek(self._log_start)
            return log.read()

    def _remembered_port(self) -> int | None:
        """The port of the last start: keeping it spares everyone a new epoch."""
        try:
            for line in (self._data / CONFIGURATION).read_text().splitlines():
                if line.startswith("port "):
                    return int(line.removeprefix("port "))
        except (OSError, ValueError):
            return None
        return None

    def _is_free(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, port))
            except OSError:
                return False
            return True


def _alive(pid: int) -> bool:
    try:
        # A zombie answers signals, yet is gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
