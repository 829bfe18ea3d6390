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
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from deploy.errors import StartError
from deploy.local.cluster_file import Kind
from shard_node.cluster import MEMBERS, MemberKind

_FOLDERS = {Kind[kind.name]: f"{MEMBERS}/{kind.value}" for kind in MemberKind}
_CONNECT_SECONDS = 20.0
_CALL_SECONDS = 5.0

# A server that starts or stops is news to kazoo at every try; the launcher says itself what matters.
_QUIET = logging.getLogger("deploy.local.membership.kazoo")
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
    # Why it does not do its work at the moment, in its own words.
    problem: str = ""


class Membership:
    """A view of the registered members, read anew at every call."""

    def __init__(self, client: KazooClient) -> None:
        self._client = client

    def read(self, kinds: Sequence[Kind] = tuple(_FOLDERS)) -> dict[str, Member] | None:
        """The members by name. None while ZooKeeper cannot be asked: it may be on its way back."""
        members = {}
        try:
            found = [(kind, *child) for kind in kinds for child in self._children(_FOLDERS[kind])]
        except (KazooException, KazooTimeoutError):
            return None
        for kind, name, content in found:
            told = json.loads(content)
            redis_pid = told.get("redis_pid")
            members[name] = Member(
                name,
                kind,
                told["address"],
                int(told["pid"]),
                None if redis_pid is None else int(redis_pid),
                told.get("problem", ""),
            )
        return members

    def _children(self, folder: str) -> Iterator[tuple[str, bytes]]:
        try:
            names = self._client.get_children_async(folder).get(timeout=_CALL_SECONDS)
        except NoNodeError:
            # Nobody of that kind has ever registered.
            return
        for name in names:
            try:
                content, _ = self._client.get_async(f"{folder}/{name}").get(timeout=_CALL_SECONDS)
            except NoNodeError:
                # Gone since the listing.
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
