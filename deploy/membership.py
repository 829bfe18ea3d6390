"""Who has registered in ZooKeeper, as the launcher needs to know it: a part is ready once it is there.

A node may outlive its process until the session's time is over. So a member counts only with the process id
that it registered.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from deploy.cluster_file import Kind
from deploy.errors import StartError
from shard_node.registry import MEMBERS, MemberKind

_FOLDERS = {
    Kind.SHARD_NODE: f"{MEMBERS}/{MemberKind.SHARD_NODE.value}",
    Kind.COORDINATOR: f"{MEMBERS}/{MemberKind.COORDINATOR.value}",
    Kind.ROUTER: f"{MEMBERS}/{MemberKind.ROUTER.value}",
    Kind.ARCHIVER: f"{MEMBERS}/{MemberKind.ARCHIVER.value}",
}
_CONNECT_SECONDS = 20.0
_CALL_SECONDS = 5.0

# A server that starts or stops is news to kazoo at every try; the launcher says itself what matters.
_QUIET = logging.getLogger("deploy.membership.kazoo")
_QUIET.propagate = False
_QUIET.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Member:
    """One registered process; ``redis_pid`` is set for shard nodes."""

    name: str
    kind: Kind
    address: str
    pid: int
    redis_pid: int | None = None


class Membership:
    """A view of the registered members, read anew at every call."""

    def __init__(self, client: KazooClient) -> None:
        self._client = client

    def read(self, kinds: Sequence[Kind] = tuple(_FOLDERS)) -> dict[str, Member]:
        """The members by name. Empty while ZooKeeper cannot be asked: it may be on its way back."""
        members = {}
        for kind in kinds:
            for name, content in self._children(_FOLDERS[kind]):
                found = json.loads(content)
                redis_pid = found.get("redis_pid")
                members[name] = Member(
                    name,
                    kind,
                    found["address"],
                    int(found["pid"]),
                    None if redis_pid is None else int(redis_pid),
                )
        return members

    def _children(self, folder: str) -> Iterator[tuple[str, bytes]]:
        try:
            names = self._client.get_children_async(folder).get(timeout=_CALL_SECONDS)
        except (KazooException, KazooTimeoutError):
            return
        for name in names:
            try:
                content, _ = self._client.get_async(f"{folder}/{name}").get(timeout=_CALL_SECONDS)
            except (KazooException, KazooTimeoutError):
                # Gone since the listing, or the connection is: the next reading tells.
                continue
            yield name, content


@contextmanager
def membership(hosts: str) -> Iterator[Membership]:
    """Connects to ZooKeeper for as long as the block lasts; StartError when it does not answer."""
    client = KazooClient(hosts=hosts, timeout=_CONNECT_SECONDS, logger=_QUIET)
    try:
        client.start(timeout=_CONNECT_SECONDS)
        yield Membership(client)
    except KazooTimeoutError as error:
        raise StartError(f"ZooKeeper at {hosts} does not answer") from error
    finally:
        client.stop()
        client.close()
