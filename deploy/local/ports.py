"""The ports of a local cluster: chosen once, kept for good, and never another one in silence.

They are chosen below the range from which the kernel gives ports to outgoing connections: otherwise any
program could hold, by chance, the port that a stopped cluster comes back to.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.errors import StartError

HOST = "127.0.0.1"
_FIRST = 10_000
# Below this many there are too few to choose from: then any port will do.
_FEWEST = 1000
_TRIES = 200
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Fields of /proc/net/tcp (proc(5)). Connections that linger have inode 0 and belong to nobody.
_LOCAL_ADDRESS, _INODE = 1, 9


@contextmanager
def chosen(names: Collection[str]) -> Iterator[dict[str, int]]:
    """A port for each name, which nobody else can choose as long as the block lasts.

    Each is bound, without listening: a server that binds it as servers do (SO_REUSEADDR) may listen there.
    Raises StartError when there is none.
    """
    with ExitStack() as stack:
        yield {name: _bound(stack) for name in names}


def free_port() -> int:
    """A port for a server that is started at once: nobody holds it until then. Raises StartError."""
    with chosen(("",)) as found:
        return found[""]


def require_free(ports: Mapping[str, int]) -> None:
    """Raises StartError, with who holds the port if known, unless a server could listen on every one."""
    for name, port in ports.items():
        if not is_free(port):
            raise StartError(
                f"{name} keeps port {port}, which is held by {_holder(port)}: end that, or stop the whole "
                f"cluster and have it choose other ports with 'tallystick up --new-ports'"
            )


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that linger do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _bound(stack: ExitStack) -> int:
    for _ in range(_TRIES):
        holder = socket.socket()
        port = random.choice(_range())  # noqa: S311 - which one does not matter
        try:
            # Without SO_REUSEADDR, so that it fails also beside another's that was chosen and not used yet.
            holder.bind((HOST, port))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stack.callback(holder.close)
        return port
    raise StartError(f"no port is free on {HOST}: {_TRIES} were tried")


def _range() -> range:
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError):
        first = 32768
    return range(_FIRST, first) if first - _FIRST >= _FEWEST else range(_FIRST, 65536)


def _holder(port: int) -> str:
    """Who has a port, in words."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[_LOCAL_ADDRESS].rpartition(":")[2], 16) == port and fields[_INODE] != "0":
                sockets.add(f"socket:[{fields[_INODE]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            # Ended meanwhile, or another user's.
            continue
    return "another program"
