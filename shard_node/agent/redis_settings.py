"""The settings that a shard's Redis starts with, and what its users may do."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# What whoever connects may do: read, look after the server, and call the engine, whose commands are of no
# category. Only the engine changes a shard: a plain write could replace its key, or cut off its ledger.
#   -@write       SET, DEL, RENAME, EXPIRE, MOVE, RESTORE, SORT, XADD, XTRIM, FLUSHALL, SWAPDB and their like
#   -@scripting   EVAL and FCALL; FUNCTION LIST stays: the agent looks for the data of older releases
#   -debug        it can end the server and reload old data
#   -module       the engine is there from the start to the end; MODULE LIST says so
ACCESS: Final = "on nopass ~* &* +@all -@write -@scripting +function|list -debug -module +module|list"

# What each setting is for:
#   loadmodule                       the shard engine: without it the server does not start on a shard's data
#   user default                     see above
#   databases 1                      a shard is in database 0; in another one there could be a second shard
#   appendonly, appendfsync always   an acknowledged write is on disk; one fsync a turn of the loop
#   no-appendfsync-on-rewrite no     also while the file is rewritten
#   aof-load-truncated yes           a torn last write was never acknowledged
#   aof-use-rdb-preamble yes         the engine's data can only be rewritten as a snapshot
#   save ""                          no other snapshots: the append-only file alone is the truth
#   maxmemory-policy noeviction      a full shard refuses writes; it never forgets money
#   auto-aof-rewrite-min-size 256mb  a rewrite competes with the load; reading that much takes seconds
_SETTINGS: Final = """\
bind {host}
port {port}
protected-mode yes
dir {data}
daemonize no
loadmodule {engine}
user default {access}
databases 1
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
aof-use-rdb-preamble yes
auto-aof-rewrite-min-size 256mb
save ""
maxmemory {max_memory_bytes}
maxmemory-policy noeviction
timeout 0
tcp-keepalive 30
"""


def settings(host: str, port: int, data: Path, engine: Path, max_memory_bytes: int) -> str:
    """The text of redis.conf. ``max_memory_bytes`` 0 means no limit."""
    return _SETTINGS.format(
        host=host,
        port=port,
        data=_quoted(data.resolve()),
        engine=_quoted(engine),
        access=ACCESS,
        max_memory_bytes=max_memory_bytes,
    )


def _quoted(path: Path) -> str:
    """A path as one word of the settings, whatever is in it."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
